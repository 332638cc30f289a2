"""Lowered Fourier layers agree with those of neuraloperator."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from neuralop.layers.base_spectral_conv import BaseSpectralConv  # noqa: E402
from neuralop.layers.spectral_convolution import SpectralConv  # noqa: E402
from neuralop.models import FNO, UNO  # noqa: E402
from torch import nn  # noqa: E402

from ptychonnx.export.lowering.torch.dft_matrices import FourierChain, RowsFirstChain  # noqa: E402
from ptychonnx.export.lowering.torch.spectral import LoweredSpectralConv, lower_spectral  # noqa: E402
from ptychonnx.runtime.errors import InputError, VerificationError  # noqa: E402


def relative_error(found, expected):
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)


LAYERS = [
    ((64, 64), (12, 12), {}),
    ((64, 64), (13, 11), {}),
    ((63, 63), (12, 12), {}),
    ((63, 63), (13, 15), {}),
    ((33, 48), (10, 14), {}),
    ((48, 33), (14, 33), {}),
    ((32, 32), (32, 32), {}),
    ((33, 33), (33, 33), {}),
    ((16, 16), (40, 40), {}),
    ((17, 15), (40, 24), {}),
    ((33, 33), (8, 8), {"max_n_modes": (12, 9)}),
    ((33, 33), (7, 8), {"max_n_modes": (12, 12)}),
    ((9, 9), (8, 8), {"max_n_modes": (12, 12)}),
    ((33, 33), (8, 8), {"bias": False}),
    ((33, 32), (8, 8), {"fft_norm": "backward"}),
    ((33, 32), (8, 8), {"fft_norm": "ortho"}),
    ((32, 33), (8, 8), {"resolution_scaling_factor": 2}),
    ((33, 32), (8, 9), {"resolution_scaling_factor": 0.5}),
    ((32, 32), (8, 8), {"factorization": "tucker", "rank": 0.6}),
    ((32, 32), (8, 8), {"factorization": "cp", "rank": 0.6, "implementation": "factorized"}),
    ((32, 32), (8, 8), {"factorization": "tt", "rank": 0.6}),
    ((32, 33), (3, 30), {}),
    ((33, 32), (3, 30), {"resolution_scaling_factor": (2, 0.5)}),
    ((32, 32), (2, 32), {"separable": True}),
    ((33,), (12,), {}),
    ((12, 9, 11), (6, 5, 6), {}),
    ((32, 33), (8, 9), {"separable": True}),
    ((33, 32), (8, 8), {"separable": True, "factorization": "tucker", "max_n_modes": (10, 9)}),
    ((32, 33), (8, 9), {"complex_data": True}),
    ((33,), (8,), {"complex_data": True}),
    ((9, 10, 8), (4, 5, 6), {"complex_data": True, "resolution_scaling_factor": 2}),
]


def some_input(layer, size, batch=4):
    return torch.randn(batch, layer.in_channels, *size, dtype=torch.cfloat if layer.complex_data else None)


@pytest.mark.parametrize(("size", "modes", "settings"), LAYERS, ids=str)
def test_a_lowered_layer_equals_the_original(size, modes, settings):
    layer = SpectralConv(3, 3 if "separable" in settings else 5, modes, **settings).eval()
    x = some_input(layer, size)
    expected = layer(x)
    lowering = lower_spectral(layer, x[:2])
    assert isinstance(lowering.module, LoweredSpectralConv)
    found = lowering.module(x)
    assert found.shape == expected.shape
    assert relative_error(found, expected) < 2e-6
    assert list(lowering.layers) == [""]
    assert lowering.layers[""] < 2e-6
    assert not lowering.notes


@pytest.mark.parametrize(("modes", "chain"), [((3, 30), RowsFirstChain), ((12, 12), FourierChain)], ids=str)
def test_the_axis_with_far_fewer_modes_comes_first(modes, chain):
    lowered = lower_spectral(SpectralConv(2, 2, modes), torch.zeros(1, 2, 32, 32)).module
    assert type(lowered.chain) is chain


@pytest.mark.parametrize("precision", ["half", "mixed"])
def test_reduced_precision_is_lowered_at_full_precision_and_said_so(precision):
    layer = SpectralConv(2, 2, (4, 4), fno_block_precision=precision)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), layer)
    x = torch.randn(2, 2, 8, 8)
    lowering = lower_spectral(model, x)
    assert layer.fno_block_precision == precision
    text = f"trained with fno_block_precision='{precision}', lowered at full precision"
    assert lowering.notes == {"1": text}
    layer.fno_block_precision = "full"
    assert relative_error(lowering.module(x), model(x)) < 2e-6


@pytest.mark.parametrize("size", [(8, 6, 10), (7, 9, 5)], ids=str)
@pytest.mark.parametrize("scaling", [0.5, 2, (2, 1, 0.6)], ids=str)
def test_three_axes_are_resampled_for_the_skip_connection_as_in_the_original(size, scaling):
    layer = SpectralConv(2, 3, (4, 4, 4), resolution_scaling_factor=scaling)
    x = torch.randn(2, 5, *size)
    lowered = lower_spectral(layer, x[:, :2]).module
    assert relative_error(lowered.transform(x), layer.transform(x)) < 2e-6


def test_the_lowered_form_holds_no_complex_number():
    lowered = lower_spectral(SpectralConv(2, 2, (8, 8)), torch.zeros(1, 2, 16, 16)).module
    assert not any(value.is_complex() for value in lowered.state_dict().values())


class Tree(nn.Module):
    """Spectral layers in a list, in a dictionary, and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.many = nn.ModuleList([SpectralConv(2, 2, (8, 8)), SpectralConv(2, 2, (6, 5), bias=False)])
        self.named = nn.ModuleDict({"inner": nn.Sequential(SpectralConv(2, 2, (4, 4)), nn.GELU())})
        self.again = self.many[0]

    def forward(self, x):
        for layer in self.many:
            x = x + torch.relu(layer(x))
        return self.again(self.named["inner"](x))


def test_every_layer_of_a_tree_is_lowered_and_the_tree_of_the_caller_is_left_alone():
    tree = Tree()
    before = {name: value.clone() for name, value in tree.state_dict().items()}
    x = torch.randn(3, 2, 21, 18)
    expected = tree(x)
    lowering = lower_spectral(tree, x)
    assert set(lowering.layers) == {"many.0", "many.1", "named.inner.0", "again"}
    assert not any(isinstance(layer, SpectralConv) for layer in lowering.module.modules())
    assert lowering.module.again is lowering.module.many[0]
    assert relative_error(lowering.module(x), expected) < 2e-6
    assert sum(isinstance(layer, SpectralConv) for layer in tree.modules()) == 3
    assert tree.training
    assert all(torch.equal(value, before[name]) for name, value in tree.state_dict().items())


def test_whole_models_of_neuraloperator_are_lowered():
    x = torch.randn(2, 1, 33, 32)
    fno = FNO((8, 8), 1, 1, 8, n_layers=2).eval()
    uno = UNO(
        1,
        1,
        hidden_channels=8,
        n_layers=3,
        uno_out_channels=[8, 8, 8],
        uno_n_modes=[(6, 6), (4, 4), (6, 6)],
        uno_scalings=[[0.5, 0.5], [1, 1], [2, 2]],
        channel_mlp_skip="linear",
    ).eval()
    for model in (fno, uno):
        assert relative_error(lower_spectral(model, x).module(x), model(x)) < 5e-6


class Foreign(BaseSpectralConv):
    def forward(self, x):
        return x


class Doubled(SpectralConv):
    def forward(self, x, output_shape=None):
        return 2 * super().forward(x, output_shape)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (SpectralConv(2, 2, (4, 4), complex_data=True), "receives torch.float32, only torch.complex64"),
        (SpectralConv(2, 2, (4, 4)).double(), "single precision"),
        (Foreign(), "Foreign"),
    ],
    ids=["complex", "double", "foreign"],
)
def test_unsupported_layers_are_refused_by_name(layer, reason):
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sequential(layer))
    with pytest.raises(InputError, match=rf"^layer 1\.0: .*{reason}"):
        lower_spectral(model, torch.zeros(1, 2, 8, 8))


def test_a_layer_at_two_sizes_or_never_reached_is_refused():
    class Twice(nn.Module):
        def __init__(self, sizes):
            super().__init__()
            self.layer, self.sizes = SpectralConv(2, 2, (4, 4)), sizes

        def forward(self, x):
            for size in self.sizes:
                x = self.layer(x)[..., :size, :size]
            return x

    with pytest.raises(InputError, match=r"^layer layer: is called at sizes \(8, 8\) and \(6, 6\)"):
        lower_spectral(Twice([6, 6]), torch.zeros(1, 2, 8, 8))
    with pytest.raises(InputError, match=r"^layer layer: is not reached"):
        lower_spectral(Twice([]), torch.zeros(1, 2, 8, 8))


def test_a_layer_that_computes_something_else_fails_its_own_verification():
    with pytest.raises(VerificationError, match=r"^layer 0: its lowered form differs"):
        lower_spectral(nn.Sequential(Doubled(2, 2, (4, 4))), torch.zeros(1, 2, 8, 8))
