"""Transpositions move behind elementwise operators if that leaves fewer of them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import helper

from ptychonnx.export.passes.transpose_sinking import TransposeSinkingPass
from tests.export.graphs import kinds, model_of, run

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
CHANNELS = np.random.default_rng(1).normal(size=3).astype(np.float32)
IMAGE = np.random.default_rng(2).normal(size=(4, 5, 1)).astype(np.float32)


def sunk(model):
    graph = ir.from_proto(model)
    result = TransposeSinkingPass()(graph)
    return ir.to_proto(result.model), result.modified


def test_arithmetic_between_two_layouts_needs_no_transposition():
    model = model_of(
        [
            helper.make_node("Transpose", ["x"], ["last"], perm=TO_LAST),
            helper.make_node("Mul", ["last", "channels"], ["scaled"]),
            helper.make_node("Tanh", ["last"], ["bent"]),
            helper.make_node("Sub", ["scaled", "bent"], ["both"]),
            helper.make_node("Add", ["image", "both"], ["shifted"]),
            helper.make_node("Mul", ["shifted", "two"], ["doubled"]),
            helper.make_node("Transpose", ["doubled"], ["back"], perm=TO_FIRST),
            helper.make_node("Relu", ["back"], ["y"]),
        ],
        [("x", ["batch", 3, 4, 5])],
        [("y", ["batch", 3, 4, 5])],
        [("channels", CHANNELS), ("image", IMAGE), ("two", np.float32(2))],
    )
    after, modified = sunk(model)
    assert modified
    assert "Transpose" not in kinds(after)
    np.testing.assert_array_equal(run(after, x=X)[0], run(model, x=X)[0])


def test_nothing_moves_where_nothing_is_gained():
    model = model_of(
        [
            helper.make_node("Transpose", ["x"], ["last"], perm=TO_LAST),
            helper.make_node("Mul", ["last", "channels"], ["scaled"]),
            helper.make_node("ReduceSum", ["scaled", "axis"], ["sum"], keepdims=1),
            helper.make_node("Transpose", ["sum"], ["y"], perm=TO_FIRST),
        ],
        [("x", ["batch", 3, 4, 5])],
        [("y", ["batch", 1, 4, 5])],
        [("channels", CHANNELS), ("axis", np.array([3]))],
    )
    after, modified = sunk(model)
    assert not modified
    assert kinds(after) == kinds(model)


def test_two_different_layouts_do_not_meet():
    model = model_of(
        [
            helper.make_node("Transpose", ["x"], ["one"], perm=[0, 2, 1, 3]),
            helper.make_node("Transpose", ["z"], ["other"], perm=[0, 1, 3, 2]),
            helper.make_node("Add", ["one", "other"], ["y"]),
        ],
        [("x", ["batch", 3, 4, 5]), ("z", ["batch", 4, 5, 3])],
        [("y", ["batch", 4, 3, 5])],
    )
    assert not sunk(model)[1]
