"""All passes together, including those of onnx-ir: smaller graphs, equal outputs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from ptychonnx.export.graph.tensor_names import name_inputs, name_outputs
from ptychonnx.export.passes import clean
from tests.export.graphs import kinds, model_of, run

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
SHAPES = [("x", ["batch", 4])], [("y", ["batch", 4])]
# More elements than onnx-ir's own limit for small constants.
LARGE = np.random.default_rng(1).normal(size=(4, 400)).astype(np.float32)
CASES = {
    "equal constants of any size are one": (
        [
            helper.make_node("MatMul", ["x", "a"], ["ax"]),
            helper.make_node("Tanh", ["x"], ["t"]),
            helper.make_node("MatMul", ["t", "b"], ["bx"]),
            helper.make_node("Sub", ["ax", "bx"], ["d"]),
            helper.make_node("MatMul", ["d", "back"], ["y"]),
        ],
        [("a", LARGE), ("b", LARGE.copy()), ("back", LARGE.T.copy())],
        ["MatMul", "Tanh", "MatMul", "Sub", "MatMul"],
        2,
    ),
    "what is computed twice is computed once": (
        [
            helper.make_node("Exp", ["x"], ["p"]),
            helper.make_node("Exp", ["x"], ["q"]),
            helper.make_node("Sqrt", ["q"], ["r"]),
            helper.make_node("Add", ["p", "r"], ["y"]),
        ],
        [],
        ["Exp", "Sqrt", "Add"],
        0,
    ),
    "copies of values, and what no output needs, go": (
        [
            helper.make_node("Identity", ["x"], ["same"]),
            helper.make_node("Neg", ["same"], ["y"]),
            helper.make_node("Sqrt", ["same"], ["unused"]),
        ],
        [("nobody", LARGE)],
        ["Neg"],
        0,
    ),
    "constants inside nodes become initialisers": (
        [
            helper.make_node("Constant", [], ["two"], value_float=2.0),
            helper.make_node("Pow", ["x", "two"], ["y"]),
        ],
        [],
        ["Pow"],
        1,
    ),
}


@pytest.mark.parametrize("claim", CASES)
def test_the_graph_gets_smaller_and_its_output_stays(claim):
    nodes, constants, expected, initializers = CASES[claim]
    model = model_of(nodes, *SHAPES, constants)
    cleaned = clean(model).model
    assert kinds(cleaned) == expected
    assert len(cleaned.graph.initializer) == initializers
    np.testing.assert_array_equal(run(cleaned, x=X)[0], run(model, x=X)[0])


@pytest.mark.parametrize("claim", CASES)
def test_a_clean_graph_is_left_as_it_is(claim):
    nodes, constants, *_ = CASES[claim]
    once = clean(model_of(nodes, *SHAPES, constants)).model
    assert clean(once).model.SerializeToString(deterministic=True) == once.SerializeToString(
        deterministic=True
    )


def test_equal_outputs_are_computed_once_and_keep_their_names():
    nodes = [helper.make_node("Abs", ["x"], ["p"]), helper.make_node("Abs", ["x"], ["q"])]
    outputs = [(name, ["batch", 4]) for name in ("p", "q")]
    model = model_of(nodes, [("x", ["batch", 4])], outputs)
    after = clean(model).model
    assert [value.name for value in after.graph.output] == ["p", "q"]
    assert kinds(after) == ["Abs", "Identity"]
    for value in run(after, x=X):
        np.testing.assert_array_equal(value, np.abs(X))


def test_an_input_that_is_an_output_has_both_names():
    outputs = [(name, ["batch", 4]) for name in ("b", "b", "c")]
    graph = helper.make_graph(
        [helper.make_node("Abs", ["c"], ["b"])],
        "as torch's exporter names it",
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
    )
    name_inputs(graph, ["x"])
    name_outputs(graph, ["a", "b", "c"])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    after = clean(model).model
    assert [value.name for value in after.graph.input] == ["x"]
    assert [value.name for value in after.graph.output] == ["a", "b", "c"]
    for value, expected in zip(run(after, x=X), (np.abs(X), np.abs(X), X), strict=True):
        np.testing.assert_array_equal(value, expected)
