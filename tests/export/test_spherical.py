"""Lowered spherical convolutions agree with those of neuraloperator."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")
pytest.importorskip("torch_harmonics")

from neuralop.layers.spherical_convolution import SphericalConv  # noqa: E402
from torch import nn  # noqa: E402

from ptychonnx.export.lowering.torch.spectral import lower_spectral  # noqa: E402
from ptychonnx.export.lowering.torch.spherical import LoweredSphericalConv  # noqa: E402
from ptychonnx.runtime.errors import InputError, VerificationError  # noqa: E402

TWO_GRIDS = ["equiangular", "legendre-gauss"]


def relative_error(found, expected):
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)


def spherical(size, modes, **settings):
    """A layer of 3 to 5 channels and a batch of inputs."""
    layer = SphericalConv(3, 5, modes, **{"factorization": "dense", **settings}).eval()
    return layer, torch.randn(4, 3, *size)


LAYERS = [
    ((24, 48), (16, 16), {}),
    ((25, 47), (15, 17), {}),
    ((24, 25), (40, 16), {}),
    ((25, 48), (24, 50), {}),
    ((24, 48), (16, 24), {"sht_grids": "legendre-gauss"}),
    ((24, 47), (16, 24), {"sht_grids": "lobatto"}),
    ((24, 48), (16, 24), {"sht_grids": TWO_GRIDS}),
    ((24, 48), (16, 24), {"sht_norm": "schmidt"}),
    ((24, 48), (16, 24), {"sht_norm": "unnorm", "bias": False}),
    ((24, 48), (12, 24), {"resolution_scaling_factor": 0.5}),
    ((24, 47), (16, 24), {"resolution_scaling_factor": [0.5, 2], "sht_grids": TWO_GRIDS[::-1]}),
    # The output holds fewer orders than the layer keeps.
    ((24, 48), (16, 40), {"resolution_scaling_factor": 0.5}),
    ((24, 48), (16, 24), {"max_n_modes": (20, 30)}),
    ((24, 48), (16, 24), {"factorization": "cp", "implementation": "factorized"}),
    ((24, 48), (16, 24), {"factorization": "tucker", "implementation": "reconstructed"}),
    ((24, 48), (16, 24), {"factorization": "tt", "implementation": "factorized"}),
]


@pytest.mark.parametrize(("size", "modes", "settings"), LAYERS, ids=str)
def test_a_lowered_layer_equals_the_original(size, modes, settings):
    layer, x = spherical(size, modes, **settings)
    expected = layer(x)
    lowering = lower_spectral(layer, x[:2])
    assert isinstance(lowering.module, LoweredSphericalConv)
    found = lowering.module(x)
    assert found.shape == expected.shape
    assert relative_error(found, expected) < 2e-6
    assert lowering.layers[""] < 2e-6


def test_a_layer_with_fewer_modes_than_weights_uses_the_first_degrees():
    layer, x = spherical((24, 48), (16, 16))
    layer.n_modes = (10, 12)
    assert relative_error(lower_spectral(layer, x).module(x), layer(x)) < 2e-6


@pytest.mark.parametrize("channels", [3, 5, 7])
@pytest.mark.parametrize(
    "settings",
    [
        {"sht_grids": TWO_GRIDS},
        {"resolution_scaling_factor": 2},
        {"resolution_scaling_factor": [0.5, 1], "sht_grids": TWO_GRIDS},
    ],
    ids=str,
)
def test_a_skip_connection_is_resampled_like_in_the_original(channels, settings):
    layer, x = spherical((24, 47), (16, 24), **settings)
    skip = torch.randn(4, channels, 24, 47)
    expected = layer.transform(skip)
    found = lower_spectral(layer, x).module.transform(skip)
    assert found.shape == expected.shape
    assert relative_error(found, expected) < 2e-6


def test_a_skip_connection_on_the_same_grid_is_left_alone():
    layer, x = spherical((24, 48), (16, 24))
    assert lower_spectral(layer, x).module.transform(x) is x


def test_a_skip_connection_of_another_size_is_refused():
    layer, x = spherical((24, 48), (16, 24), resolution_scaling_factor=2)
    lowered = lower_spectral(layer, x).module
    with pytest.raises(InputError, match=r"resampled from \(23, 48\) to \(46, 96\), .* from \(24, 48\) to"):
        lowered.transform(x[:, :, 1:])


def test_the_lowered_form_holds_no_complex_number_and_no_original():
    layer, x = spherical((24, 48), (16, 24), resolution_scaling_factor=2)
    lowered = lower_spectral(layer, x).module
    assert not any(value.is_complex() for value in lowered.state_dict().values())
    assert not any(type(part).__module__.startswith("torch_harmonics") for part in lowered.modules())


def test_a_layer_that_does_not_run_in_neuraloperator_is_refused_by_name():
    layer = SphericalConv(2, 2, (8, 8), separable=True, factorization="dense")
    with pytest.raises(IndexError):
        layer(torch.zeros(1, 2, 16, 32))
    with pytest.raises(InputError, match=r"^layer 1: a separable SphericalConv does not run"):
        lower_spectral(nn.Sequential(nn.Conv2d(2, 2, 1), layer), torch.zeros(1, 2, 16, 32))


class Doubled(SphericalConv):
    def forward(self, x, output_shape=None):
        return 2 * super().forward(x, output_shape)


class OtherSkip(SphericalConv):
    def transform(self, x, output_shape=None):
        return 2 * super().transform(x, output_shape)


@pytest.mark.parametrize("kind", [Doubled, OtherSkip])
def test_a_layer_that_computes_something_else_fails_its_own_verification(kind):
    with pytest.raises(VerificationError, match=r"^layer 0: its lowered form differs"):
        lower_spectral(nn.Sequential(kind(2, 2, (8, 8))), torch.zeros(1, 2, 16, 32))
