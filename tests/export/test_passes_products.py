"""A product of transposed images, transposed back, becomes one product from the left."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from ptychonnx.export.passes.transposed_products import TransposedProductPass
from tests.export.graphs import kinds, model_of, run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4, 6)).astype(np.float32)
MATRIX = RNG.normal(size=(4, 5)).astype(np.float32)
TURN = {"perm": [0, 2, 1]}


def turned(model):
    result = TransposedProductPass()(ir.from_proto(model))
    return ir.to_proto(result.model), result.modified


def model_with(nodes, outputs=(("y", ["batch", 5, 6]),)):
    constants = [("m", MATRIX), ("lines", np.array([-1, 4])), ("images", np.array([-1, 6, 5]))]
    return model_of(nodes, [("x", ["batch", 4, 6])], list(outputs), constants)


@pytest.mark.parametrize("below_each_other", [False, True])
def test_transposed_products_become_one(below_each_other):
    first = helper.make_node("Transpose", ["x"], ["t"], **TURN)
    last = [helper.make_node("Transpose", ["p"], ["u"], **TURN), helper.make_node("Neg", ["u"], ["y"])]
    middle = [helper.make_node("MatMul", ["t", "m"], ["p"])]
    if below_each_other:
        middle = [
            helper.make_node("Reshape", ["t", "lines"], ["l"]),
            helper.make_node("MatMul", ["l", "m"], ["q"]),
            helper.make_node("Reshape", ["q", "images"], ["p"]),
        ]
    model = model_with([first, *middle, *last])
    after, modified = turned(model)
    assert modified
    assert kinds(after) == ["MatMul", "Neg"]
    np.testing.assert_allclose(run(after, x=X)[0], run(model, x=X)[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run(after, x=X)[0], -(MATRIX.T @ X), rtol=1e-5, atol=1e-6)


def test_values_with_other_readers_stay():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], **TURN),
        helper.make_node("MatMul", ["t", "m"], ["p"]),
        helper.make_node("Transpose", ["p"], ["y"], **TURN),
        helper.make_node("Neg", ["p"], ["z"]),
    ]
    after, modified = turned(model_with(nodes, [("y", ["batch", 5, 6]), ("z", ["batch", 6, 5])]))
    assert not modified
    assert kinds(after) == ["Transpose", "MatMul", "Transpose", "Neg"]


def test_a_transposition_without_an_order_reverses_all_axes_and_stays():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], **TURN),
        helper.make_node("MatMul", ["t", "m"], ["p"]),
        helper.make_node("Transpose", ["p"], ["y"]),
    ]
    assert not turned(model_with(nodes, [("y", [5, 6, "batch"])]))[1]


def test_another_transposition_and_a_view_that_mixes_images_stay():
    other = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[2, 0, 1]),
        helper.make_node("MatMul", ["t", "m"], ["p"]),
        helper.make_node("Transpose", ["p"], ["y"], perm=[1, 2, 0]),
    ]
    assert not turned(model_with(other))[1]
    # Lines of another length than the images have: rows of different images would meet.
    mixed = [
        helper.make_node("Transpose", ["x"], ["t"], **TURN),
        helper.make_node("Reshape", ["t", "wide"], ["l"]),
        helper.make_node("MatMul", ["l", "m"], ["q"]),
        helper.make_node("Reshape", ["q", "images"], ["p"]),
        helper.make_node("Transpose", ["p"], ["y"], **TURN),
    ]
    constants = [
        ("m", RNG.normal(size=(8, 5)).astype(np.float32)),
        ("wide", np.array([-1, 8])),
        ("images", np.array([-1, 3, 5])),
    ]
    model = model_of(mixed, [("x", ["batch", 4, 6])], [("y", ["batch", 5, 3])], constants)
    assert not turned(model)[1]
