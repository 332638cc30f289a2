"""The order of a graph depends on what it computes, not on how it was written."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

ir = pytest.importorskip("onnx_ir")

from onnx import helper  # noqa: E402

from ptychonnx.export.passes.canonical_order import CanonicalOrderPass  # noqa: E402
from tests.export.graphs import kinds, model_of, run  # noqa: E402

CONSTANTS = [("w", np.float32([2])), ("v", np.float32([3])), ("unread", np.float32([4]))]
# Each may stand before or behind the other; the others must follow.
FREE = [
    helper.make_node("Mul", ["x", "w"], ["a"]),
    helper.make_node("Add", ["x", "v"], ["b"]),
    helper.make_node("Exp", ["x"], ["c"]),
]
LAST = [helper.make_node("Sub", ["b", "a"], ["d"]), helper.make_node("Div", ["d", "c"], ["y"])]


def test_every_way_to_write_a_graph_ends_in_the_same_order():
    x = np.random.default_rng(0).normal(size=(2, 1)).astype(np.float32)
    texts = set()
    for free, constants in itertools.product(itertools.permutations(FREE), itertools.permutations(CONSTANTS)):
        before = model_of([*free, *LAST], [("x", ["n", 1])], [("y", ["n", 1])], constants)
        graph = ir.from_proto(before)
        CanonicalOrderPass()(graph)
        after = ir.to_proto(graph)
        assert np.array_equal(run(after, x=x)[0], run(before, x=x)[0])
        assert kinds(after) == ["Add", "Mul", "Sub", "Exp", "Div"]
        assert [tensor.name for tensor in after.graph.initializer] == ["v", "w", "unread"]
        texts.add(str(after.graph.node))
    assert len(texts) == 1
    assert not CanonicalOrderPass()(ir.from_proto(after)).modified
