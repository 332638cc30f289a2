"""Keeps the pixels that come of a repetition apart until the few channels of a head are there."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ptychonnx.export.passes.convolution_attributes import (
    Convolution,
    doubled,
    make_constant,
    read_convolution,
)
from ptychonnx.export.passes.subpixel_convolution import PARITY_TAPS, pointwise_reader

__all__ = ["SubpixelHeadPass", "is_worth_parities"]

logger = logging.getLogger(__name__)

# Engines compute convolutions in blocks of 8 or 16 channels: four images of so many still fit.
_MOST_OUTPUTS = 4
# [parity read, parity given, tap of the small image, tap of the large one]. Row 2 i + A reads the rows
# 2 i + A - 1 .. 2 i + A + 1; the even ones among them are the rows i, i + 1 of the even half, the odd ones the rows
# i - 1, i of the odd half.
_HEAD_TAPS = np.array(
    [
        [[[0, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 1]]],
        [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]],
    ],
    dtype=np.float64,
)


class SubpixelHeadPass(ir.passes.InPlacePass):
    """``Resize, Conv, [activation,] Conv`` becomes, for each parity of rows and columns, ``Conv, [activation,] Conv``.

    The `Resize` repeats each row and column once (nearest), the convolutions are 3 x 3 with zeros around, and the
    second one gives four channels at most. The first is computed on the small image as in
    `subpixel_convolution.SubpixelPass`, each of its four parts by itself. They are never put together: the second
    convolution of the large image is a sum of 2 x 2 convolutions of the parts, whose few channels alone are
    interleaved. Outputs differ by rounding (below 1e-6 of the largest).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not any(node.op_type == "Resize" for node in model.graph):
            return ir.passes.PassResult(model, modified=False)
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        replaced = sum(_replace(model.graph, node) for node in list(model.graph))
        return ir.passes.PassResult(model, modified=replaced > 0)


def is_worth_parities(head: Convolution, value: ir.Value | None) -> bool:
    """Whether the pass takes a convolution of this value."""
    return head.is_same and len(head.weight) <= _MOST_OUTPUTS and _origin(value) is not None


def _origin(value: ir.Value | None) -> tuple[ir.Node, Convolution, ir.Node | None] | None:
    """The convolution of a doubled image that a value comes from, and the activation between, all read once."""
    node = None if value is None or not _read_once(value) else value.producer()
    if node is None:
        return None
    activation = None
    if node.op_type != "Conv":
        inside = node.inputs[0] if node.inputs else None
        if inside is None or pointwise_reader(inside) is not node:
            return None
        activation, node = node, inside.producer()
    layer = None if node is None else read_convolution(node)
    if node is None or layer is None or not layer.is_same or doubled(node.inputs[0]) is None:
        return None
    return node, layer, activation


def _read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _replace(graph: ir.Graph, node: ir.Node) -> bool:
    head = read_convolution(node)
    if head is None or not is_worth_parities(head, node.inputs[0]):
        return False
    origin = _origin(node.inputs[0])
    assert origin is not None
    first, layer, activation = origin
    small, target = doubled(first.inputs[0]), node.outputs[0]
    assert small is not None
    outputs, label = len(head.weight), target.name
    nodes: list[ir.Node] = []

    def convolve(
        value: ir.Value, kind: str, weight: np.ndarray, bias: ir.Value | None, pads: list[int]
    ) -> ir.Value:
        constant = make_constant(graph, f"{label}.{kind}", weight.astype(np.float32))
        inputs = [value, constant] if bias is None else [value, constant, bias]
        nodes.append(ir.node("Conv", inputs, {"kernel_shape": [2, 2], "pads": pads}))
        return nodes[-1].outputs[0]

    bias = None
    if head.bias is not None:
        bias = make_constant(graph, f"{label}.repeated", np.repeat(head.bias, 4))
    total: ir.Value | None = None
    for a, b in itertools.product((0, 1), repeat=2):
        # Even rows are parity 1 of `PARITY_TAPS`: they read the rows i - 1 and i.
        weight = np.einsum(
            "ps,qt,oist->oipq", PARITY_TAPS[1 - a], PARITY_TAPS[1 - b], layer.weight.astype(float)
        )
        part = convolve(small.value, f"part_{a}{b}", weight, _bias(first), [1 - a, 1 - b, a, b])
        if activation is not None:
            nodes.append(ir.node(activation.op_type, [part], dict(activation.attributes)))
            part = nodes[-1].outputs[0]
        weight = np.einsum("Aps,Bqt,oist->oABipq", _HEAD_TAPS[a], _HEAD_TAPS[b], head.weight.astype(float))
        weight = weight.reshape(4 * outputs, *weight.shape[3:])
        part = convolve(part, f"head_{a}{b}", weight, bias if total is None else None, [a, b, 1 - a, 1 - b])
        if total is not None:
            nodes.append(ir.node("Add", [total, part]))
        total = nodes[-1].outputs[0]
    assert total is not None
    nodes += _interleaved(graph, total, outputs, small.rows, small.columns, label)
    replaced = [node, *([] if activation is None else [activation]), first]
    ir.convenience.replace_nodes_and_values(graph, node, replaced, nodes, [target], [nodes[-1].outputs[0]])
    logger.debug("%s: computed from the parities of rows and columns", label)
    return True


def _interleaved(
    graph: ir.Graph, value: ir.Value, channels: int, rows: int, columns: int, label: str | None
) -> list[ir.Node]:
    """Nodes that put the pixels of four images into one.

    Parameters
    ----------
    value
        [B, (channel, row parity, column parity), rows, columns].
    label
        Beginning of the names of new constants.

    Returns
    -------
    Of which the last gives [B, channels, 2 rows, 2 columns].
    """

    def constant(kind: str, *numbers: int) -> ir.Value:
        return make_constant(graph, f"{label}.{kind}", np.array(numbers, dtype=np.int64))

    # Columns first: runs of pixels are then copied as whole rows.
    nodes = [ir.node("Reshape", [value, constant("parities", 0, 2 * channels, 2, rows * columns)])]
    nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": [0, 1, 3, 2]}))
    shape = constant("columns", 0, channels, 2, rows, 2 * columns)
    nodes.append(ir.node("Reshape", [*nodes[-1].outputs, shape]))
    nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": [0, 1, 3, 2, 4]}))
    shape = constant("pixels", 0, channels, 2 * rows, 2 * columns)
    nodes.append(ir.node("Reshape", [*nodes[-1].outputs, shape]))
    return nodes


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None
