"""Values that do not depend on the input are computed once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import helper

from ptychonnx.export.passes import clean
from ptychonnx.export.passes.constant_folding import ConstantFoldingPass
from tests.export.graphs import kinds, model_of, run

X = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)


def folded(model):
    graph = ir.from_proto(model)
    result = ConstantFoldingPass()(graph)
    return ir.to_proto(result.model), result.modified


def test_nodes_of_constants_become_one_constant():
    model = model_of(
        [
            helper.make_node("Sqrt", ["four"], ["two"]),
            helper.make_node("Mul", ["two", "two"], ["again"]),
            helper.make_node("Mul", ["x", "again"], ["y"]),
        ],
        [("x", ["batch", 2, 4])],
        [("y", ["batch", 2, 4])],
        [("four", np.float32(4))],
    )
    after, modified = folded(model)
    assert modified
    assert kinds(after) == ["Mul"]
    np.testing.assert_array_equal(run(after, x=X)[0], run(model, x=X)[0])


def test_sizes_fold_where_the_batch_is_not_among_them():
    model = model_of(
        [
            helper.make_node("Shape", ["x"], ["sizes"], start=1, end=3),
            helper.make_node("ReduceProd", ["sizes"], ["pixels"], keepdims=1),
            helper.make_node("Concat", ["minus", "pixels"], ["target"], axis=0),
            helper.make_node("Reshape", ["x", "target"], ["y"]),
        ],
        [("x", ["batch", 2, 4])],
        [("y", ["batch", 8])],
        [("minus", np.array([-1]))],
    )
    after, _ = folded(model)
    assert kinds(after) == ["Reshape"]
    np.testing.assert_array_equal(run(after, x=X)[0], run(model, x=X)[0])


def test_the_batch_is_not_folded():
    model = model_of(
        [
            helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
            helper.make_node("Concat", ["batch", "eight"], ["target"], axis=0),
            helper.make_node("Reshape", ["x", "target"], ["y"]),
        ],
        [("x", ["batch", 2, 4])],
        [("y", ["batch", 8])],
        [("eight", np.array([8]))],
    )
    after, _ = folded(model)
    for batch in (1, 3):
        assert run(after, x=X[:batch])[0].shape == (batch, 8)


def test_a_graph_without_constants_is_left_alone():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", ["batch", 2])], [("y", ["batch", 2])])
    assert not folded(model)[1]


def test_a_folded_transposition_is_stored_in_the_order_of_its_axes():
    grid = np.arange(8, dtype=np.float32).reshape(4, 2)
    model = model_of(
        [
            helper.make_node("Transpose", ["grid"], ["turned"], perm=[1, 0]),
            helper.make_node("Add", ["x", "turned"], ["y"]),
        ],
        [("x", ["batch", 2, 4])],
        [("y", ["batch", 2, 4])],
        [("grid", grid)],
    )
    graph = ConstantFoldingPass()(ir.from_proto(model)).model
    stored = [value.const_value.numpy() for value in graph.graph.initializers.values()]
    assert any(np.array_equal(array, grid.T) and array.flags.c_contiguous for array in stored)
    np.testing.assert_array_equal(run(clean(model).model, x=X)[0], X + grid.T)
