"""A target that is computed only for the batch becomes constant; any other stays."""

from __future__ import annotations

import numpy as np
import pytest

ir = pytest.importorskip("onnx_ir")

from onnx import helper  # noqa: E402
from onnx_ir.passes.common import RemoveUnusedNodesPass  # noqa: E402

from ptychonnx.export.passes.reshape_targets import ReshapeTargetPass  # noqa: E402
from tests.export.graphs import kinds, model_of, run  # noqa: E402


def reshape_graph(tail, shape, result):
    """Reshape of x to [its first size, *tail]."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "tail"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = [("zero", np.array([0], np.int64)), ("tail", np.array(tail, np.int64))]
    return model_of(nodes, [("x", shape)], [("y", result)], constants)


def apply(model):
    graph = ir.from_proto(model)
    modified = ReshapeTargetPass()(graph).modified
    RemoveUnusedNodesPass()(graph)
    return ir.to_proto(graph), modified


def test_the_computation_goes_and_the_result_stays():
    before = reshape_graph([3, 8], ["n", 4, 6], ["n", 3, 8])
    after, modified = apply(before)
    assert modified
    assert kinds(after) == ["Reshape"]
    for batch in (1, 5):
        x = np.random.default_rng(0).normal(size=(batch, 4, 6)).astype(np.float32)
        assert np.array_equal(run(after, x=x)[0], run(before, x=x)[0])


def test_of_two_unknown_sizes_one_may_stay_in_its_place():
    before = reshape_graph([-1, 2], ["n", "m", 6], ["n", "k", 2])
    after, modified = apply(before)
    assert modified
    assert kinds(after) == ["Reshape"]
    for shape in ((1, 5, 6), (4, 2, 6)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        assert np.array_equal(run(after, x=x)[0], run(before, x=x)[0])


@pytest.mark.parametrize("ones", [1, -1])
def test_sizes_that_shape_inference_does_not_follow_are_read_from_their_arithmetic(ones):
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["some"]),
        helper.make_node("Gather", ["sizes", "last"], ["others"]),
        helper.make_node("Concat", ["some", "ones", "others"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["reshaped"]),
        helper.make_node("Identity", ["reshaped"], ["y"]),
    ]
    constants = [("first", [0, 1]), ("ones", [ones]), ("last", [2])]
    arrays = [(name, np.array(values, np.int64)) for name, values in constants]
    before = model_of(nodes, [("x", ["n", 4, 6])], [("y", ["n", 4, 1, 6])], arrays)
    after, modified = apply(before)
    assert modified
    assert kinds(after) == ["Reshape", "Identity"]
    x = np.random.default_rng(0).normal(size=(5, 4, 6)).astype(np.float32)
    assert np.array_equal(run(after, x=x)[0], run(before, x=x)[0])


def test_a_result_with_two_unknown_sizes_is_left_alone():
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "second"], ["some"]),
        helper.make_node("Concat", ["some", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    arrays = [("second", np.array([1], np.int64)), ("rest", np.array([-1], np.int64))]
    before = model_of(nodes, [("x", ["n", "m"])], [("y", ["m", "n"])], arrays)
    after, modified = apply(before)
    assert not modified
    assert kinds(after) == kinds(before)
