"""Torch networks, including their Fourier layers, agree with their graphs in onnxruntime."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")
pytest.importorskip("lightning")

from neuralop.layers.spectral_convolution import SpectralConv  # noqa: E402
from neuralop.models import FNO  # noqa: E402
from torch import nn  # noqa: E402

from ptychonnx.export.graph.inspection import check_graph, operators  # noqa: E402
from ptychonnx.export.graph.tensor_names import INPUT_NAME, OUTPUT_NAME  # noqa: E402
from ptychonnx.export.lowering.torch.convert import convert_module, convert_network  # noqa: E402
from ptychonnx.export.passes import clean  # noqa: E402
from ptychonnx.export.verification.engines import open_onnxruntime  # noqa: E402
from ptychonnx.export.verification.verify import relative_difference  # noqa: E402
from ptychonnx.runtime.errors import InputError  # noqa: E402
from ptychonnx.train.config import NetworkConfig  # noqa: E402
from ptychonnx.train.initial_retrieval import retrieval_constants  # noqa: E402
from ptychonnx.train.registry import architectures  # noqa: E402
from ptychonnx.train.torch import uno  # noqa: E402
from ptychonnx.train.torch.network import build_network  # noqa: E402

TORCH = [architecture for architecture in architectures().values() if architecture.framework == "torch"]


def some_probe(n):
    axis = np.arange(n) - n // 2
    square = axis[:, None] ** 2 + axis[None, :] ** 2
    return (30 * np.exp(-square / (n / 4) ** 2 + 0.02j * square)).astype(np.complex64)[None]


def network(architecture, n, **settings):
    config = NetworkConfig(n=n, width=8, blocks=2, modes=12, **settings)
    guess = retrieval_constants(some_probe(n), 0.05, steps=1, final_steps=1, members=config.channels)
    native = build_network(architecture, config, guess, seed=1)
    with torch.no_grad():
        for parameter in native.module.parameters():
            # Zeros that an architecture starts from would hide a head that is not connected.
            parameter.add_(0.05 * torch.randn_like(parameter))
    return native


@pytest.mark.parametrize(("n", "gridsize"), [(64, 1), (33, 2)])
@pytest.mark.parametrize("architecture", TORCH, ids=lambda architecture: architecture.name)
def test_an_architecture_agrees_in_onnxruntime(architecture, n, gridsize, capfd):
    native = network(architecture, n, gridsize=gridsize)
    state = copy.deepcopy(native.module.state_dict())
    counts = np.random.default_rng(0).poisson(3, (7, gridsize**2, n, n))
    given = [np.sqrt(counts).astype(np.float32)]
    if gridsize > 1:
        given.append(np.random.default_rng(1).uniform(-9, 9, (7, gridsize**2, 2)).astype(np.float32))
    converted = convert_network(native, *given)
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(value, state[name]) for name, value in native.module.state_dict().items())
    layers = [name for name, layer in native.module.named_modules() if isinstance(layer, SpectralConv)]
    assert sorted(converted.layers) == sorted(layers)
    assert converted.lowering != "none"
    names = ("diffraction", "offsets")[: len(given)]
    model = check_graph(clean(converted.model).model.SerializeToString(), inputs=names)
    engine = open_onnxruntime(model.SerializeToString())
    assert engine(*(each[:5] for each in given)).shape == (5, n, n, gridsize**2, 2)
    assert relative_difference(engine(*given), native.predict(*given)) < 1e-5
    found = operators(model)
    assert found["Gelu"]
    assert not {"DFT", "STFT", "If", "Loop", "Erf"} & set(found)
    assert [entry.version for entry in model.opset_import] == [20]
    dimension = model.graph.input[0].type.tensor_type.shape.dim
    assert dimension[0].dim_param == "batch"
    assert [side.dim_value for side in dimension[1:]] == [gridsize**2, n, n]


def test_resampling_to_the_size_that_is_there_leaves_no_trace():
    # One level: every layer, and every skip connection, keeps the size.
    module = uno.Uno(
        NetworkConfig(n=16, width=4, blocks=1, modes=4),
        retrieval_constants(some_probe(16), 0.05, steps=2, final_steps=2),
    )
    converted = convert_module(module, np.ones((2, 1, 16, 16), np.float32))
    assert "Resize" not in operators(converted.model)


def test_any_module_with_fourier_layers_can_be_converted():
    model = FNO((8, 8), 1, 2, 8, n_layers=1).eval()
    example = np.random.default_rng(0).normal(size=(3, 1, 32, 33)).astype(np.float32)
    converted = convert_module(model, example)
    engine = open_onnxruntime(converted.model.SerializeToString())
    with torch.inference_mode():
        expected = model(torch.from_numpy(example)).numpy()
    assert relative_difference(engine(example), expected) < 1e-5
    assert [converted.model.graph.input[0].name, converted.model.graph.output[0].name] == [
        INPUT_NAME,
        OUTPUT_NAME,
    ]


def test_layers_of_one_size_share_their_transforms():
    model = FNO((8, 8), 1, 2, 8, n_layers=3).eval()
    converted = convert_module(model, np.zeros((1, 1, 32, 33), np.float32))
    cleaned = clean(converted.model).model
    shapes = Counter(tuple(tensor.dims) for tensor in cleaned.graph.initializer)
    # Columns forth and back, rows forth and back, and one mixing a layer.
    assert shapes[33, 10] == shapes[10, 33] == shapes[16, 64] == shapes[64, 16] == 1
    assert shapes[40, 16, 16] == 3


def test_a_module_without_fourier_layers_is_said_to_have_none():
    converted = convert_module(nn.Conv2d(1, 2, 3), np.zeros((1, 1, 8, 8), np.float32))
    assert converted.lowering == "none"
    assert converted.layers == {}


def test_unsupported_networks_are_refused_in_one_line(capfd):
    class Complex(nn.Module):
        def forward(self, x):
            return torch.view_as_real(torch.linalg.eigvals(x))

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    example = np.ones((2, 1, 8, 8), np.float32)
    with pytest.raises(
        InputError, match=r"^aten\.linalg_eig(vals)? of complex numbers at test_torch_convert[^\n]+$"
    ):
        convert_module(Complex(), example)
    with pytest.raises(InputError, match=r"exporter cannot convert|returns 2 outputs"):
        convert_module(Pair(), example)
    with pytest.raises(InputError, match=r"^layer 0: only single precision"):
        convert_module(nn.Sequential(SpectralConv(1, 1, (4, 4)).double()), example)
