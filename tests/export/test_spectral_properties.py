"""Every configuration of `SpectralConv` agrees with its graph in onnxruntime."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

import onnxruntime  # noqa: E402
from hypothesis import HealthCheck, assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from neuralop.layers.spectral_convolution import SpectralConv  # noqa: E402
from torch import nn  # noqa: E402

from ptychonnx.export.lowering.torch.convert import convert_lowered  # noqa: E402
from ptychonnx.export.lowering.torch.mode_mixing import factorisations, mix_channels  # noqa: E402
from ptychonnx.export.lowering.torch.spectral import lower_spectral  # noqa: E402
from ptychonnx.export.passes import clean  # noqa: E402

# More, and other ones each time, if asked for.
EXAMPLES = os.environ.get("PTYCHONNX_EXAMPLES")
# Sizes per number of axes: products stay small.
LARGEST = {1: 40, 2: 17, 3: 8}


# Layers of one graph: half of the time of an export does not depend on what is exported.
TOGETHER = 5


class Together(nn.Module):
    """Layers, each with an input and an output of its own; complex values in and out as pairs of numbers."""

    def __init__(self, layers, complex_data):
        super().__init__()
        self.layers, self.complex_data = nn.ModuleList(layers), complex_data

    def forward(self, *inputs):
        return tuple(
            torch.view_as_real(layer(torch.view_as_complex(x))) if of_pairs else layer(x)
            for layer, x, of_pairs in zip(self.layers, inputs, self.complex_data, strict=True)
        )


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
    max_examples=int(EXAMPLES or 30) // TOGETHER,
    deadline=None,
    derandomize=EXAMPLES is None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(st.lists(st.tuples(configurations(), st.booleans()), min_size=TOGETHER, max_size=TOGETHER))
def test_the_graph_of_any_configuration_agrees_with_torch(drawn):
    torch.manual_seed(1)
    layers, inputs = [], []
    for (size, arguments), give_output_shape in drawn:
        try:
            layer = SpectralConv(**arguments).eval().requires_grad_(False)
        except ZeroDivisionError:
            continue  # a factor of rank 0
        kind = torch.complex64 if arguments["complex_data"] else torch.float32
        inputs.append(torch.randn(3, layer.in_channels, *size, dtype=kind))
        layers.append(Reshaped(layer, [length + 1 for length in size]) if give_output_shape else layer)
    assume(layers)
    together = Together(layers, [x.is_complex() for x in inputs])
    inputs = [torch.view_as_real(x) if x.is_complex() else x for x in inputs]
    outputs = together(*inputs)
    lowering = lower_spectral(together, *inputs)
    names = [f"{kind}_{number}" for kind in ("input", "output") for number in range(len(layers))]
    converted = convert_lowered(
        lowering,
        *(x[:2].contiguous() for x in inputs),
        inputs=names[: len(layers)],
        outputs=names[len(layers) :],
    )
    data = clean(converted.model).model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    results = session.run(names[len(layers) :], dict(zip(names, (x.numpy() for x in inputs), strict=False)))
    for layer, result, expected in zip(layers, results, outputs, strict=True):
        assert result.shape == tuple(expected.shape), layer
        scale = float(expected.abs().max())
        assert abs(result - expected.numpy()).max() <= 1e-5 * scale, layer


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
