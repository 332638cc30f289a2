"""Shapes are changed at most once in a row, and only where they change."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import helper

from ptychonnx.export.passes.reshape_merging import ReshapeEliminationPass, ReshapeMergingPass
from tests.export.graphs import kinds, model_of, run

X = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
IMAGE, ROW = np.array([-1, 1, 2, 4]), np.array([-1, 8])


def joined(model, step=ReshapeMergingPass):
    result = step()(ir.from_proto(model))
    return ir.to_proto(result.model), result.modified


def test_a_view_of_a_view_is_one():
    model = model_of(
        [
            helper.make_node("Reshape", ["x", "image"], ["a"]),
            helper.make_node("Squeeze", ["a", "one"], ["b"]),
            helper.make_node("Reshape", ["b", "row"], ["c"]),
            helper.make_node("Neg", ["c"], ["y"]),
        ],
        [("x", ["batch", 2, 4])],
        [("y", ["batch", 8])],
        [("image", IMAGE), ("one", np.array([1])), ("row", ROW)],
    )
    after, modified = joined(model)
    assert modified
    assert kinds(after) == ["Reshape", "Neg"]
    np.testing.assert_array_equal(run(after, x=X)[0], run(model, x=X)[0])


def test_a_view_to_the_same_shape_goes_whatever_the_batch_is_called():
    model = model_of(
        [
            helper.make_node("Reshape", ["x", "same"], ["a"]),
            helper.make_node("Neg", ["a"], ["y"]),
        ],
        [("x", ["batch", 2, 4])],
        [("y", ["batch", 2, 4])],
        [("same", np.array([-1, 2, 4]))],
    )
    after, _ = joined(model, ReshapeEliminationPass)
    assert kinds(after) == ["Neg"]
    np.testing.assert_array_equal(run(after, x=X)[0], run(model, x=X)[0])


def test_values_with_other_readers_and_outputs_stay():
    model = model_of(
        [
            helper.make_node("Reshape", ["x", "row"], ["a"]),
            helper.make_node("Neg", ["a"], ["y"]),
            helper.make_node("Reshape", ["a", "image"], ["b"]),
            helper.make_node("Reshape", ["b", "image"], ["z"]),
        ],
        [("x", ["batch", 2, 4])],
        [("y", ["batch", 8]), ("z", ["batch", 1, 2, 4])],
        [("image", IMAGE), ("row", ROW)],
    )
    after, _ = joined(model)
    assert sorted(kinds(after)) == ["Neg", "Reshape", "Reshape"]
    for found, expected in zip(run(after, x=X), run(model, x=X), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_shape_with_two_unknown_sizes_is_left_alone():
    model = model_of(
        [
            helper.make_node("Reshape", ["x", "keep"], ["a"]),
            helper.make_node("Neg", ["a"], ["y"]),
        ],
        [("x", ["batch", "rows", 4])],
        [("y", ["batch", None, None])],
        [("keep", np.array([0, 4, -1]))],
    )
    after, modified = joined(model)
    assert not modified
    assert kinds(after) == ["Reshape", "Neg"]
