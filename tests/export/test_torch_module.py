"""Any torch module becomes a verified file, or is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")
pytest.importorskip("lightning")

from neuralop.layers.spectral_convolution import SpectralConv  # noqa: E402
from neuralop.models import FNO, UQNO  # noqa: E402
from torch import nn  # noqa: E402

import ptychonnx.export.lowering.torch.native_module as native_module  # noqa: E402
from ptychonnx.export.artifact.artifact_checks import check_artifact  # noqa: E402
from ptychonnx.export.artifact.export_module import ModuleInput, ModuleOptions, export_module  # noqa: E402
from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription  # noqa: E402
from ptychonnx.export.artifact.source_loading import load_source  # noqa: E402
from ptychonnx.export.lowering.torch.weights import load_weights  # noqa: E402
from ptychonnx.export.verification.verification_report import VerificationReport  # noqa: E402
from ptychonnx.runtime.errors import InputError, VerificationError  # noqa: E402

IMAGE = ModuleInput((1, 16, 17))


def some_fno(**settings):
    torch.manual_seed(0)
    return FNO((6, 6), 1, 2, 8, n_layers=1, **settings)


def run(path, *inputs):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def noise(*shape):
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def test_a_network_of_neuraloperator_becomes_a_verified_file_with_a_description(tmp_path):
    model, out = some_fno(), tmp_path / "fno.onnx"
    training = model.training
    result = export_module(model, [IMAGE], out, source="net.py:build")
    assert model.training == training
    x = noise(5, 1, 16, 17)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(out, x)[0], expected, atol=1e-5 * np.abs(expected).max())
    metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert list(metadata) == [MODULE_KEY]
    described = ModuleDescription.from_json(metadata[MODULE_KEY], "here")
    assert described == result.description
    assert described.source == "net.py:build"
    assert described.parameters == sum(p.numel() for p in model.parameters())
    assert described.parity.max_relative_error < 1e-5
    assert described.parity.batches == [1, 3, 16]
    assert "SpectralConv" in described.lowering
    assert all(check.passed for check in check_artifact(out))
    report = VerificationReport.model_validate_json(out.with_suffix(".verification.json").read_text())
    assert {case.inputs for case in report.cases} == {"random", "all-zero", "small", "large"}
    assert {case.engine.split()[0] for case in report.cases} >= {"onnxruntime", "onnx"}


def test_the_same_module_is_exported_to_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        export_module(some_fno(), [IMAGE], tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


class Pair(nn.Module):
    def forward(self, left, right):
        return {"sum": left + right, "rest": (left[:, :2], left * right)}


def test_several_inputs_and_outputs_keep_their_names_and_are_compared_one_by_one(tmp_path):
    result = export_module(Pair(), [ModuleInput((3,)), ModuleInput((3,))], tmp_path / "pair.onnx")
    graph = onnx.load(tmp_path / "pair.onnx").graph
    assert [value.name for value in graph.input] == ["left", "right"]
    assert [value.name for value in graph.output] == ["sum", "rest_0", "rest_1"]
    left, right = noise(4, 3), 1 + noise(4, 3)
    found = run(tmp_path / "pair.onnx", left, right)
    for value, expected in zip(found, (left + right, left[:, :2], left * right), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert {case.output for case in result.report.cases} == {"sum", "rest_0", "rest_1"}
    assert all(check.passed for check in check_artifact(tmp_path / "pair.onnx"))


def test_a_tensor_that_is_returned_twice_has_two_names(tmp_path):
    class Twice(nn.Module):
        def forward(self, x):
            y = torch.fft.fft(x).abs()
            return y, y, torch.fft.fft(x).abs()

    export_module(Twice(), [ModuleInput((6,))], tmp_path / "twice.onnx")
    names = [value.name for value in onnx.load(tmp_path / "twice.onnx").graph.output]
    assert names == [f"output_{number}" for number in range(3)]
    x = noise(3, 6)
    expected = np.abs(np.fft.fft(x))
    for value in run(tmp_path / "twice.onnx", x):
        np.testing.assert_allclose(value, expected, atol=1e-5)


def test_a_network_with_an_uncertainty_is_exported(tmp_path):
    export_module(UQNO(some_fno()), [IMAGE], tmp_path / "uq.onnx")
    assert [len(value) for value in run(tmp_path / "uq.onnx", noise(3, 1, 16, 17))] == [3, 3]


def test_complex_values_are_pairs_of_numbers_in_the_graph(tmp_path):
    torch.manual_seed(0)
    layer = SpectralConv(2, 3, (6, 5), complex_data=True)
    result = export_module(layer, [ModuleInput((2, 12, 9), complex_values=True)], tmp_path / "c.onnx")
    assert result.description.complex_values == ["x", "output"]
    x = noise(3, 2, 12, 9, 2)
    with torch.inference_mode():
        expected = layer(torch.view_as_complex(torch.from_numpy(x)))
    found = run(tmp_path / "c.onnx", x)[0]
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected.numpy(), atol=1e-5)


def test_reduced_precision_of_fourier_layers_is_undone_and_said_so(tmp_path):
    result = export_module(some_fno(fno_block_precision="mixed"), [IMAGE], tmp_path / "m.onnx")
    said = "fno_blocks.convs.0: trained with fno_block_precision='mixed', lowered at full precision"
    assert said in result.description.lowering
    assert any(said in line for line in result.verdict())


def test_a_fixed_batch_needs_no_dynamic_one(tmp_path):
    class OnlyFour(nn.Module):
        def forward(self, x):
            assert x.shape[0] == 4
            return x.reshape(2, 2, 3).sum(1).repeat_interleave(2, 0)

    export_module(OnlyFour(), [ModuleInput((3,))], tmp_path / "four.onnx", ModuleOptions(batch=4))
    assert onnx.load(tmp_path / "four.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


def test_a_graph_that_differs_is_refused_with_the_layer(tmp_path, monkeypatch):
    convert = native_module.convert_lowered

    def spoilt(lowering, *given, **settings):
        with torch.no_grad():
            lowering.module[2].weight[0, 0] += 1
        return convert(lowering, *given, **settings)

    monkeypatch.setattr(native_module, "convert_lowered", spoilt)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh())
    before = module[2].weight.clone()
    with pytest.raises(
        VerificationError, match=r"worst element .*; the first layer that differs is 2; .*refused"
    ):
        export_module(module, [ModuleInput((3,))], tmp_path / "net.onnx")
    assert torch.equal(before, module[2].weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.refused.json", "net.refused.txt"]


class Text(nn.Module):
    def forward(self, x):
        return "text"


@pytest.mark.parametrize(
    ("module", "inputs", "reason"),
    [
        (
            nn.Linear(3, 4),
            [ModuleInput((5,))],
            r"does not run on inputs of shape \[2, 5\]: mat1 and mat2",
        ),
        (nn.Linear(3, 4), [ModuleInput((3,))] * 2, r"takes 1 inputs, got 2 shapes"),
        (Text(), [ModuleInput((3,))], r"returns str, expected tensors"),
        (nn.Linear(3, 4).double(), [ModuleInput((3,))], r"does not run on inputs"),
    ],
)
def test_unsupported_modules_are_refused_in_one_line(module, inputs, reason, tmp_path):
    with pytest.raises(InputError, match=reason) as caught:
        export_module(module, inputs, tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


SOURCE = """
import torch
from beside import WIDTH

class Net(torch.nn.Linear):
    pass

def build():
    torch.manual_seed(0)
    return Net(3, WIDTH)

made = build()
number = 3

def fails():
    raise ValueError("not today\\nnor tomorrow")
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "net.py").write_text(SOURCE)
    (tmp_path / "beside.py").write_text("WIDTH = 5")
    return tmp_path / "net.py"


def test_a_module_is_built_from_a_file_that_imports_its_neighbour(source):
    assert load_source(f"{source}:build").out_features == 5
    assert isinstance(load_source(f"{source}:made"), nn.Linear)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("net.py:absent", "defines no 'absent'"),
        ("net.py:number", "is int, expected a torch.nn.Module"),
        ("net.py:fails", r"net.py:fails\(\) raised ValueError: not today$"),
        ("net.py", "expected FILE.py:NAME"),
        ("gone.py:build", "no such file"),
        ("broken.py:build", "broken.py raised SyntaxError"),
    ],
)
def test_a_source_without_a_module_is_refused(name, reason, source):
    (source.parent / "broken.py").write_text("def build(:")
    with pytest.raises(InputError, match=reason):
        load_source(str(source.parent / name))


def test_weights_are_loaded_and_those_of_another_module_refused(source, tmp_path):
    module, other = load_source(f"{source}:build"), nn.Linear(3, 5)
    torch.save({"state_dict": other.state_dict()}, tmp_path / "w.pt")
    load_weights(module, tmp_path / "w.pt")
    assert torch.equal(module.weight, other.weight)
    torch.save(nn.Linear(4, 5).state_dict(), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x.pt: not the weights of this module"):
        load_weights(module, tmp_path / "x.pt")
    torch.save(other, tmp_path / "whole.pt")
    with pytest.raises(InputError, match=r"whole.pt: not a state dictionary that holds tensors only"):
        load_weights(module, tmp_path / "whole.pt")
    with pytest.raises(InputError, match=r"gone.pt: no such file"):
        load_weights(module, tmp_path / "gone.pt")


def test_weights_as_neuraloperator_saves_them_are_loaded(tmp_path):
    trained, model = some_fno(), FNO((6, 6), 1, 2, 8, n_layers=1)
    torch.save(trained.state_dict(), tmp_path / "model_state_dict.pt")
    load_weights(model, tmp_path / "model_state_dict.pt")
    x = torch.from_numpy(noise(1, 1, 16, 16))
    assert torch.equal(model(x), trained(x))


def test_a_description_of_an_older_or_later_version_is_read(tmp_path):
    assert ModuleDescription.from_json(json.dumps({"source": "a", "later": 1}), "x").source == "a"
    with pytest.raises(InputError, match=r"^x: ptychonnx.module not understood"):
        ModuleDescription.from_json("[]", "x")


class InPlace(nn.Module):
    def forward(self, x):
        return x.add_(1).square_()


def test_a_module_that_changes_its_input_is_compared_on_the_input_as_it_was():
    module = native_module.TorchModule(InPlace(), [IMAGE])
    given = np.zeros((2, 1, 16, 17), np.float32)
    for predict in (module.predict, module.exact):
        (found,) = predict(given)
        assert (found == 1).all()
        assert not given.any()
