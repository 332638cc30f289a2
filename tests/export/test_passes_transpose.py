"""Transpositions that cancel are removed, neighbouring Resizes are merged, and values stay."""

from __future__ import annotations

import numpy as np
import pytest

ir = pytest.importorskip("onnx_ir")

from onnx import helper  # noqa: E402

from ptychonnx.export.passes.transpose_elimination import TransposeEliminationPass  # noqa: E402
from tests.export.graphs import kinds, model_of, run  # noqa: E402

LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def move(source, target, permutation):
    return helper.make_node("Transpose", [source], [target], perm=permutation)


def grow(source, target, scales, **attributes):
    return helper.make_node("Resize", [source, "", scales], [target], **{**NEAREST, **attributes})


CONSTANTS = [
    ("rows", np.array([1, 2, 1, 1], np.float32)),
    ("columns", np.array([1, 1, 3, 1], np.float32)),
    ("half", np.array([1, 1.5, 1, 1], np.float32)),
]


def check(before, expected):
    graph = ir.from_proto(before)
    modified = TransposeEliminationPass()(graph).modified
    after = ir.to_proto(graph)
    assert kinds(after) == expected
    assert modified == (expected != kinds(before))
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    for found, wanted in zip(run(after, x=x), run(before, x=x), strict=True):
        assert np.array_equal(found, wanted)
    return after


def test_an_upsampling_between_two_layouts_ends_as_one_resize():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        move("a", "b", LAST),
        grow("b", "c", "rows"),
        grow("c", "d", "columns"),
        move("d", "e", FIRST),
        helper.make_node("Neg", ["e"], ["y"]),
    ]
    before = model_of(nodes, [("x", ["n", 3, 4, 5])], [("y", ["n", 3, 8, 15])], CONSTANTS)
    after = check(before, ["Relu", "Resize", "Neg"])
    assert after.graph.output[0].name == "y"


def test_transpositions_join_even_if_the_first_is_read_elsewhere():
    nodes = [
        move("x", "a", LAST),
        helper.make_node("Relu", ["a"], ["z"]),
        move("a", "b", LAST),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    nodes.insert(2, move("a", "back", FIRST))
    nodes.insert(3, helper.make_node("Abs", ["back"], ["w"]))
    outputs = [("y", ["n", 5, 3, 4]), ("z", ["n", 4, 5, 3]), ("w", ["n", 3, 4, 5])]
    after = check(
        model_of(nodes, [("x", ["n", 3, 4, 5])], outputs), ["Transpose", "Relu", "Abs", "Transpose", "Neg"]
    )
    assert [node.input[0] for node in after.graph.node if node.op_type in ("Abs", "Transpose")] == ["x"] * 3


def test_a_resize_that_is_read_elsewhere_or_is_another_kind_stays_where_it_is():
    shared = [grow("x", "a", "rows"), move("a", "y", LAST), helper.make_node("Neg", ["a"], ["z"])]
    outputs = [("y", ["n", 4, 5, 6]), ("z", ["n", 6, 4, 5])]
    check(model_of(shared, [("x", ["n", 3, 4, 5])], outputs, CONSTANTS), ["Resize", "Transpose", "Neg"])
    for scales, kind in (("half", "nearest"), ("rows", "linear")):
        nodes = [grow("x", "a", scales, mode=kind), move("a", "y", LAST)]
        size = 4 if scales == "half" else 6
        check(
            model_of(nodes, [("x", ["n", 3, 4, 5])], [("y", ["n", 4, 5, size])], CONSTANTS),
            ["Resize", "Transpose"],
        )
