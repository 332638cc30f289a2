"""Multiplications are counted as by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from ptychonnx.export.graph.inspection import multiply_adds
from tests.export.graphs import model_of


def zeros(*shape):
    return np.zeros(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("node", "x", "w", "y", "expected"),
    [
        # 8 x 6 pixels, 5 channels from 3, 3 x 3.
        (
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
            (3, 8, 6),
            (5, 3, 3, 3),
            (5, 8, 6),
            6480,
        ),
        # Every second row and column.
        (
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
            (3, 8, 6),
            (5, 3, 3, 3),
            (5, 4, 3),
            1620,
        ),
        # Each channel by itself.
        (helper.make_node("Conv", ["x", "w"], ["y"], group=3), (3, 8, 6), (3, 1, 1, 1), (3, 8, 6), 144),
        # 8 x 6 pixels, each spread over 2 x 2 in 5 channels.
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            (3, 8, 6),
            (3, 5, 2, 2),
            (5, 16, 12),
            2880,
        ),
        # Three matrices of 8 rows.
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (3, 8, 6), (6, 7), (3, 8, 7), 1008),
        (helper.make_node("Relu", ["x"], ["y"]), (3, 8, 6), (1,), (3, 8, 6), 0),
    ],
    ids=["Conv", "strided", "depthwise", "ConvTranspose", "MatMul", "elementwise"],
)
def test_multiplications_of_one_pattern(node, x, w, y, expected):
    model = model_of([node], [("x", ["batch", *x])], [("y", ["batch", *y])], [("w", zeros(*w))])
    assert multiply_adds(model) == expected


@pytest.mark.parametrize("transposed", [0, 1])
def test_multiplications_of_a_gemm(transposed):
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transA=transposed)
    x = [6, 8] if transposed else [8, 6]
    assert multiply_adds(model_of([node], [("x", x)], [("y", [8, 7])], [("w", zeros(6, 7))])) == 8 * 6 * 7


def test_rows_that_follow_from_the_batch_are_counted():
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = [("rows", np.array([-1, 6])), ("w", zeros(6, 7))]
    model = model_of(nodes, [("x", ["batch", 3, 8, 6])], [("y", ["rows", 7])], constants)
    model.graph.value_info.append(helper.make_tensor_value_info("flat", 1, ["rows", 6]))
    assert multiply_adds(model) == 3 * 8 * 6 * 7
