"""Every configuration of `SpectralConv` agrees with its graph in onnxruntime."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from hypothesis import HealthCheck, given, reject, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from neuralop.layers.spectral_convolution import SpectralConv  # noqa: E402
from torch import nn  # noqa: E402

from ptychonnx.export.lowering.torch.convert import convert_lowered  # noqa: E402
from ptychonnx.export.lowering.torch.mode_mixing import factorisations, mix_channels  # noqa: E402
from ptychonnx.export.lowering.torch.spectral import Lowering, lower_spectral  # noqa: E402
from ptychonnx.export.passes import clean  # noqa: E402
from ptychonnx.export.verification.engines import open_onnxruntime  # noqa: E402

# More, and other ones each time, if asked for.
EXAMPLES = os.environ.get("PTYCHONNX_EXAMPLES")
# Sizes per number of axes: products stay small.
LARGEST = {1: 40, 2: 17, 3: 8}


class Pairs(nn.Module):
    """Complex values in and out as pairs of numbers."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return torch.view_as_real(self.module(torch.view_as_complex(x)))


@st.composite
def configurations(draw):
    """(size, arguments of SpectralConv) that neuraloperator accepts."""
    order = draw(st.integers(1, 3))
    sizes = st.integers(2, LARGEST[order])
    size = tuple(draw(sizes) for _ in range(order))
    complex_data = draw(st.booleans())
    # One axis more than half as large, and modes beyond the size.
    modes = tuple(draw(st.integers(1, length + 3)) for length in size)
    most = tuple(mode + draw(st.integers(0, 3)) for mode in modes) if draw(st.booleans()) else None
    separable = draw(st.booleans())
    channels = draw(st.integers(1, 4))
    arguments = {
        "in_channels": channels,
        "out_channels": channels if separable else draw(st.integers(1, 4)),
        "n_modes": modes,
        "max_n_modes": most,
        "complex_data": complex_data,
        "separable": separable,
        "bias": draw(st.booleans()),
        "fft_norm": draw(st.sampled_from(["forward", "backward", "ortho"])),
        "factorization": draw(st.sampled_from([None, "tucker", "cp", "tt"])),
        "rank": draw(st.sampled_from([0.2, 0.5, 1.0])),
        "implementation": draw(st.sampled_from(["reconstructed", "factorized"])),
        "resolution_scaling_factor": draw(st.sampled_from([None, None, 0.5, 1.5, 2])),
    }
    return size, arguments


@settings(
    max_examples=int(EXAMPLES or 50),
    deadline=None,
    derandomize=EXAMPLES is None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(configurations(), st.booleans())
def test_the_graph_of_any_configuration_agrees_with_torch(configuration, give_output_shape):
    size, arguments = configuration
    torch.manual_seed(1)
    try:
        layer = SpectralConv(**arguments).eval().requires_grad_(False)
    except ZeroDivisionError:
        reject()  # a factor of rank 0
    kind = torch.complex64 if arguments["complex_data"] else torch.float32
    x = torch.randn(3, layer.in_channels, *size, dtype=kind)
    model = Reshaped(layer, [length + 1 for length in size]) if give_output_shape else layer
    expected = model(x)
    lowering = lower_spectral(model, x)
    module, given_input = lowering.module, x
    if x.is_complex():
        module, given_input, expected = Pairs(module), torch.view_as_real(x), torch.view_as_real(expected)
    converted = convert_lowered(Lowering(module, lowering.layers), given_input[:2].contiguous())
    found = open_onnxruntime(clean(converted.model).model.SerializeToString())(given_input.numpy())
    assert found.shape == tuple(expected.shape)
    scale = float(expected.abs().max())
    assert abs(found - expected.numpy()).max() <= 1e-5 * scale


class Reshaped(nn.Module):
    """A layer that is told the size of its output."""

    def __init__(self, layer, output_shape):
        super().__init__()
        self.layer, self.output_shape = layer, output_shape

    def forward(self, x):
        return self.layer(x, output_shape=self.output_shape)


@pytest.mark.parametrize("factorization", [None, "tucker", "cp", "tt"])
def test_all_forms_of_a_weight_mix_alike(factorization):
    torch.manual_seed(2)
    weight = SpectralConv(5, 4, (6, 7), factorization=factorization, rank=0.5).weight
    dense = weight.to_tensor().detach().flatten(2)
    x = torch.randn(3, 5, dense.shape[-1], dtype=torch.cfloat)
    expected = torch.einsum("bik,iok->bok", x, dense)
    found = factorisations(weight)
    assert len(found) == {None: 1, "tucker": 4, "cp": 2, "tt": 2}[factorization]
    for form in found:
        y = x if form.inside is None else torch.einsum("bik,ir->brk", x, form.inside)
        equation = "brk,rsk->bsk" if form.core.ndim == 3 else "brk,rk->brk"
        y = torch.einsum(equation, y, form.core)
        y = y if form.outside is None else torch.einsum("bsk,so->bok", y, form.outside)
        assert (y - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("factorization", "steps"),
    [
        (None, ["ModeMixing"]),
        ("tucker", ["ChannelProjection", "ModeMixing", "ChannelProjection"]),
        ("cp", ["ChannelProjection", "ModeScaling", "ChannelProjection"]),
        ("tt", ["ChannelProjection", "ModeMixing"]),
    ],
)
def test_small_factors_stay_factors_and_large_ones_are_multiplied_out(factorization, steps):
    torch.manual_seed(2)
    for rank, expected in ((0.01, steps), (4.0, ["ModeMixing"])):
        weight = SpectralConv(16, 16, (6, 6), factorization=factorization, rank=rank).weight
        mixing = mix_channels(weight)
        assert [type(step).__name__ for step in mixing] == expected
        x = torch.randn(2, 32, 6 * 4)
        values = torch.view_as_complex(x.unflatten(1, (16, 2)).transpose(2, 3).contiguous())
        mixed = torch.einsum("bik,iok->bok", values, weight.to_tensor().detach().flatten(2))
        found = mixing(x).unflatten(1, (16, 2))
        assert (torch.complex(found[:, :, 0], found[:, :, 1]) - mixed).abs().max() < 1e-5 * mixed.abs().max()
