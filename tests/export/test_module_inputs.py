"""Inputs and outputs of any type and structure, and networks whose output is not finite or not well-conditioned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")
pytest.importorskip("lightning")

from torch import nn  # noqa: E402

import ptychonnx  # noqa: E402
from ptychonnx.export.artifact.artifact_checks import check_artifact  # noqa: E402
from ptychonnx.export.artifact.export_module import ModuleInput, ModuleOptions, export_module  # noqa: E402
from ptychonnx.export.artifact.input_text import other_sizes, read_example, read_input  # noqa: E402
from ptychonnx.export.lowering.torch.arguments import bind_arguments  # noqa: E402
from ptychonnx.export.verification.conditioning import judge_conditioning, rounded_otherwise  # noqa: E402
from ptychonnx.export.verification.verify import compare  # noqa: E402
from ptychonnx.runtime.errors import InputError, UnsupportedError, VerificationError  # noqa: E402


def run(path, feed):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feed), strict=True))


class Everything(nn.Module):
    """A field, a number for each sample, indices, a mask, and a grid without batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)

    def forward(self, batch, viscosity, *, ids, mask, grid):
        field = batch["field"] * viscosity[:, None] + grid
        tokens = (self.embedding(ids.long()) * mask[..., None]).sum(1)
        return {
            "field": field,
            "nested": {"tokens": [tokens, tokens.half()], "absent": None},
            "largest": field.argmax(1),
            "mean": field.mean(),
            "positive": field > 0,
        }


def test_every_kind_of_input_and_output_is_exported_and_compared(tmp_path):
    module, out = Everything(), tmp_path / "all.onnx"
    texts = ["batch.field=5", "viscosity=", "ids=3:int32", "mask=3:bool", "grid=5:shared"]
    result = export_module(module, [read_input(text) for text in texts], out)
    graph = onnx.load(out).graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "field": ["batch", 5],
        "viscosity": ["batch"],
        "ids": ["batch", 3],
        "mask": ["batch", 3],
        "grid": [5],
        "field_out": ["batch", 5],
        "tokens_0": ["batch", 4],
        "tokens_1": ["batch", 4],
        "largest": ["batch"],
        "mean": [],
        "positive": ["batch", 5],
    }
    assert result.description.bounds == {"ids": (0, 6)}
    generator = np.random.default_rng(0)
    feed = {
        "field": generator.normal(size=(4, 5)).astype(np.float32),
        "viscosity": generator.normal(size=4).astype(np.float32),
        "ids": generator.integers(0, 7, (4, 3)).astype(np.int32),
        "mask": generator.integers(0, 2, (4, 3)).astype(bool),
        "grid": generator.normal(size=5).astype(np.float32),
    }
    found = run(out, feed)
    values = {name: torch.from_numpy(array) for name, array in feed.items()}
    expected = module({"field": values.pop("field")}, **values)
    np.testing.assert_allclose(found["field_out"], expected["field"].detach(), rtol=1e-6)
    np.testing.assert_allclose(found["tokens_0"], expected["nested"]["tokens"][0].detach(), rtol=1e-5)
    assert found["tokens_1"].dtype == np.float16
    assert found["largest"].tolist() == expected["largest"].tolist()
    assert found["positive"].tolist() == expected["positive"].tolist()
    assert all(check.passed for check in check_artifact(out))


@dataclass
class Batch:
    x: torch.Tensor
    y: torch.Tensor


class TakesBatch(nn.Module):
    def forward(self, batch: Batch, scale: float = 1.0):
        return Batch(batch.x * scale, batch.x + batch.y)


def test_examples_in_containers_are_taken_from_python_and_verified_on(tmp_path):
    torch.manual_seed(0)
    examples = Batch(torch.rand(6, 3), torch.rand(3))
    result = ptychonnx.export_module(TakesBatch(), (examples, 2.0), tmp_path / "batch.onnx")
    assert next(iter(result.report.inputs)) == "example"
    graph = onnx.load(tmp_path / "batch.onnx").graph
    assert [value.name for value in graph.input] == ["x", "y"]
    assert [len(value.type.tensor_type.shape.dim) for value in graph.input] == [2, 1]
    feed = {"x": np.ones((2, 3), np.float32), "y": np.full(3, 5, np.float32)}
    found = run(tmp_path / "batch.onnx", feed)
    assert found["x_out"].tolist() == [[2, 2, 2]] * 2
    assert found["y_out"].tolist() == [[6, 6, 6]] * 2


class TakesKeywords(nn.Module):
    def forward(self, x, *, y):
        return x + 2 * y


def test_a_dictionary_from_python_holds_keyword_arguments(tmp_path):
    out = tmp_path / "keywords.onnx"
    ptychonnx.export_module(TakesKeywords(), {"y": torch.rand(2, 3), "x": (3,)}, out)
    found = run(out, {"x": np.ones((4, 3), np.float32), "y": np.full((4, 3), 3, np.float32)})
    assert found["output"].tolist() == [[7, 7, 7]] * 4


def test_a_dictionary_is_keywords_or_one_argument():
    inputs = [read_input("batch.x=3"), read_input("batch.y=3")]
    (batch,) = bind_arguments(TakesBatch(), inputs).keywords.values()
    assert isinstance(batch, Batch)
    for texts, reason in (
        (["x=3"], "the module takes batch, scale, got x"),
        (["batch.x=3", "batch.x=3"], "given twice"),
        (["batch.x=3", "batch.x.y=3"], "lies inside another input"),
        (["batch.z=3"], "Batch refuses it"),
        (["scale="], "also takes batch"),
    ):
        with pytest.raises(InputError, match=reason):
            bind_arguments(TakesBatch(), [read_input(text) for text in texts])


def test_other_sizes_replace_shapes_in_order_or_by_name():
    inputs = [read_input("x=3,8,8"), read_input("grid=2,8,8:shared")]
    assert [one.shape for one in other_sizes(inputs, "3,4,4;2,4,4")] == [(3, 4, 4), (2, 4, 4)]
    grid = other_sizes(inputs, "grid=2,4,4")[1]
    assert (grid.shape, grid.shared) == ((2, 4, 4), True)
    with pytest.raises(InputError, match="expected the sizes of 2 inputs"):
        other_sizes(inputs, "z=3,4,4")


def test_arrays_of_a_file_tell_shapes_types_and_bounds(tmp_path):
    path = tmp_path / "example.npz"
    np.savez(path, ids=np.array([[1, 5], [2, 3]]), grid=np.zeros((3, 4), np.float32))
    ids, grid = read_example(path, [])
    assert (ids.name, ids.shape, ids.dtype, ids.shared) == ("ids", (2,), "int64", False)
    assert (grid.shape, grid.shared) == ((3, 4), True)
    with pytest.raises(InputError, match=r"an array is int64 \[2, 2\], expected float32 \[batch, 2\]"):
        read_example(path, [ModuleInput((2,), name="ids"), ModuleInput((3, 4), name="grid", shared=True)])
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"not a \.npz file"):
        read_example(path, [])


class Logarithm(nn.Module):
    def forward(self, x):
        return torch.log(x)


class Nowhere(nn.Module):
    def forward(self, x):
        return torch.log(-x.square())


def test_nan_agrees_with_nan_at_the_same_place_alone(tmp_path):
    result = export_module(Logarithm(), [ModuleInput((4,))], tmp_path / "log.onnx")
    assert next(iter(result.report.inputs)) == "positive"
    assert any("returns NaN or infinity for random, all-zero" in note for note in result.description.notes)
    assert all(check.passed for check in check_artifact(tmp_path / "log.onnx"))
    with pytest.raises(InputError, match="mostly NaN or infinity"):
        export_module(Nowhere(), [ModuleInput((4,))], tmp_path / "nan.onnx")
    settings = {"scale": 1.0, "tolerance": 1e-4, "inputs": "some", "engine": "some", "any_output": True}
    values = np.array([1.0, np.nan, np.inf], np.float32)
    assert compare(values, values, **settings).passed
    for index, other in ((0, np.nan), (1, 1.0), (2, -np.inf)):
        changed = values.copy()
        changed[index] = other
        assert not compare(changed, values, **settings).passed


def test_integers_are_compared_exactly():
    settings = {"scale": 1e6, "tolerance": 1e-4, "inputs": "some", "engine": "some"}
    values = np.array([2**60, 5])
    assert compare(values, values, **settings).passed
    case = compare(values + [1, 0], values, **settings)
    assert not case.passed
    assert case.reason == "1 of 2 integers differ"


class Sensitive(nn.Module):
    """Rounding errors of the sum are multiplied by a thousand."""

    def __init__(self, factor):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.factor = nn.Linear(64, 64), factor

    def forward(self, x):
        return torch.sin(self.factor * self.linear(x))


def test_an_ill_conditioned_network_is_told_apart_from_a_wrong_graph(tmp_path):
    result = export_module(Sensitive(2e3), [ModuleInput((64,))], tmp_path / "sensitive.onnx")
    assert any(case.ill_conditioned for case in result.report.cases)
    assert any("ill-conditioned on" in line for line in result.verdict())
    with pytest.raises(VerificationError, match="the network is ill-conditioned: in float32 it differs"):
        export_module(Sensitive(1e6), [ModuleInput((64,))], tmp_path / "worse.onnx")
    exact = np.array([1.0, 0.5])
    native = (exact + [1e-3, 0]).astype(np.float32)
    settings = {"scale": 1.0, "tolerance": 1e-4, "inputs": "some", "engine": "some"}
    for error, passed in ((-1e-3, True), (0.1, False)):
        output = (exact + [error, 0]).astype(np.float32)
        case = compare(output, native, **settings)
        assert not case.passed
        assert judge_conditioning(case, output, [native], exact, 1e-4, None).passed == passed
        well = judge_conditioning(case, output, [exact.astype(np.float32)], exact, 1e-4, None)
        assert not well.ill_conditioned
    # Rounded otherwise, the network itself may be farther away.
    output = (exact + [5e-3, 0]).astype(np.float32)
    case = compare(output, native, **settings)
    assert not judge_conditioning(case, output, [native], exact, 1e-4, None).passed
    other = (exact + [2e-3, 0]).astype(np.float32)
    assert judge_conditioning(case, output, [native, other], exact, 1e-4, None).passed
    inputs = [np.ones((2, 3), np.float32), np.arange(3)]
    rounded = list(rounded_otherwise(inputs))
    assert all(np.array_equal(integers, inputs[1]) for _, integers in rounded)
    assert all(0 < np.abs(one - 1).max() <= 2.5e-7 and np.abs(one - 1).min() > 0 for one, _ in rounded)


class Inverse(nn.Module):
    """Has no value for zeros."""

    def forward(self, x):
        return torch.linalg.inv(torch.complex(x, x)).imag


def test_inputs_that_a_module_fails_on_are_left_out_and_that_is_said(tmp_path):
    result = export_module(Inverse(), [ModuleInput((2, 2))], tmp_path / "inverse.onnx")
    assert {case.inputs for case in result.report.cases} == {"random", "small", "large"}
    assert any("not verified on all-zero inputs, on which it fails: " in line for line in result.verdict())


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_module_whose_output_is_the_same_for_all_inputs_is_named(tmp_path, weight):
    module = nn.Linear(3, 2)
    nn.init.constant_(module.weight, weight)
    result = export_module(module, [ModuleInput((3,))], tmp_path / "linear.onnx")
    named = [
        line for line in result.verdict() if "every output is the same for all inputs that were tried" in line
    ]
    assert len(named) == (weight == 0)


class Double(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 2, 3).double()

    def forward(self, x):
        return self.convolution(x.double())


def test_float64_that_onnxruntime_lacks_becomes_float32_and_that_is_said(tmp_path):
    result = export_module(Double(), [ModuleInput((1, 5, 5))], tmp_path / "double.onnx")
    assert any("computes in float32" in note for note in result.description.notes)
    x = np.random.default_rng(0).normal(size=(2, 1, 5, 5)).astype(np.float32)
    found = run(tmp_path / "double.onnx", {"x": x})["output"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, Double()(torch.from_numpy(x)).detach(), atol=1e-6)


class SmallIntegers(nn.Module):
    """Operators that onnxruntime lacks for small integers: where, minimum, sum, pad, clip."""

    def forward(self, a, b, mask):
        chosen = torch.where(mask, a, -a)
        padded = nn.functional.pad(torch.minimum(a, 2 * a), (1, 1))
        return (
            chosen,
            padded,
            torch.where(mask, b, 200),
            a.clamp(3, 9),
            torch.where(mask, mask, ~mask),
            a.sum(1),
        )


def test_integers_that_onnxruntime_lacks_become_wider_inside(tmp_path):
    texts, out = ("a=4:int16", "b=4:uint8", "mask=4:bool"), tmp_path / "small.onnx"
    module = SmallIntegers()
    export_module(module, [read_input(text) for text in texts], out)
    generator = np.random.default_rng(0)
    feed = {
        "a": generator.integers(-30000, 30000, (3, 4)).astype(np.int16),
        "b": generator.integers(0, 255, (3, 4)).astype(np.uint8),
        "mask": generator.integers(0, 2, (3, 4)).astype(bool),
    }
    expected = module(*map(torch.from_numpy, feed.values()))
    for found, value in zip(run(out, feed).values(), expected, strict=True):
        assert found.dtype == value.numpy().dtype
        assert found.tolist() == value.tolist()


def test_half_precision_is_measured_and_refused_beyond_a_tolerance(tmp_path):
    torch.manual_seed(0)
    module, out = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Conv2d(4, 1, 3)), tmp_path / "half.onnx"
    result = export_module(module, [ModuleInput((1, 8, 8))], out, ModuleOptions(precision="fp16"))
    assert result.description.precision == "fp16"
    assert 1e-5 < result.description.precision_error < 1e-2
    assert any(line.startswith("precision: fp16, ") for line in result.verdict())
    weights = {tensor.data_type for tensor in onnx.load(out).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in weights
    assert all(check.passed for check in check_artifact(out))
    strict = ModuleOptions(precision="fp16", precision_tolerance=1e-6)
    with pytest.raises(VerificationError, match=r"fp16: differs from float32 by .* allowed is 1e-06"):
        export_module(module, [ModuleInput((1, 8, 8))], tmp_path / "strict.onnx", strict)
    assert not (tmp_path / "strict.onnx").exists()


class Random(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x)


class Switched(nn.Module):
    """Everything that is another thing in training or behind a wrapper."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.old = nn.utils.spectral_norm(nn.Linear(4, 4))
        self.new = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.normalise, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.new.register_forward_hook(lambda layer, inputs, output: 2 * output)

    def forward(self, x):
        return self.drop(self.normalise(self.new(self.old(x))))


def test_switches_hooks_and_parametrized_weights_are_exported_as_in_evaluation(tmp_path):
    module = Switched()
    module(torch.randn(8, 4))
    result = export_module(nn.DataParallel(module), [ModuleInput((4,))], tmp_path / "net.onnx")
    assert module.training
    assert [note.partition(":")[0] for note in result.description.notes] == [
        "exported in evaluation mode, although normalise is in training mode",
        "parametrized weights replaced by their values",
    ]
    x = torch.randn(3, 4)
    found = run(tmp_path / "net.onnx", {"x": x.numpy()})["output"]
    np.testing.assert_allclose(found, module.eval()(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Random(), "different outputs for the same inputs"),
        (torch.jit.trace(nn.Linear(4, 4), torch.zeros(1, 4)), "is a TorchScript"),
        (nn.LazyLinear(3), "weight weight: has no value before"),
        (nn.Linear(4, 4, device="meta"), "is on the meta device"),
        (nn.Linear(4, 4).bfloat16(), "is bfloat16, expected float32"),
    ],
)
def test_modules_that_cannot_be_exported_are_refused_with_the_reason(module, reason, tmp_path):
    with pytest.raises((InputError, UnsupportedError), match=reason):
        export_module(module, [ModuleInput((4,))], tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
