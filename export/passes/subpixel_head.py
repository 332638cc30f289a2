"""Keep repeated pixels separate up to the few output channels of a head."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import GraphTape, input_at, sole_producer
from ptychonnx.export.passes.convolution_attributes import Convolution, read_convolution
from ptychonnx.export.passes.nearest_resize import doubled_image
from ptychonnx.export.passes.node_rewriting import NodeRewritePass
from ptychonnx.export.passes.subpixel_convolution import PARITY_TAPS, activation_of

__all__ = ["SubpixelHeadPass", "becomes_subpixel_head"]

logger = logging.getLogger(__name__)

# Engines compute convolutions in blocks of 8 or 16 channels: four images of so many still fit.
_MOST_OUTPUTS = 4
# [input parity, output parity, tap of the small image, tap of the large one]. Row 2 i + A reads the rows
# 2 i + A - 1 .. 2 i + A + 1; the even ones among them are the rows i, i + 1 of the even half, the odd ones the rows
# i - 1, i of the odd half.
_HEAD_TAPS = np.array(
    [[[[0, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 1]]], [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]]],
    dtype=np.float64,
)


class SubpixelHeadPass(NodeRewritePass):
    """``Resize, Conv, [activation,] Conv`` becomes, for each parity of rows and columns, ``Conv, [activation,] Conv``.

    The `Resize` repeats each row and column once (nearest); the convolutions are 3 x 3 with zero padding, and the
    second one has at most four output channels. The first is computed on the small image as in
    `subpixel_convolution.SubpixelConvolutionPass`, each of its four parts separately. The parts are never interleaved:
    the second convolution of the large image is a sum of 2 x 2 convolutions of the parts, and only its few output
    channels are interleaved. Outputs differ by rounding (below 1e-6 of the largest).
    """

    operators = frozenset({"Resize"})

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        head = read_convolution(node)
        if head is None or not becomes_subpixel_head(head, node.inputs[0]):
            return False
        _replace(graph, node, head)
        return True


def becomes_subpixel_head(head: Convolution, value: ir.Value | None) -> bool:
    """Whether the pass rewrites a convolution of this value."""
    return head.keeps_size and len(head.weight) <= _MOST_OUTPUTS and _origin(value) is not None


def _origin(value: ir.Value | None) -> tuple[ir.Node, Convolution, ir.Node | None] | None:
    """The convolution of a doubled image that computes a value, and the activation after it; all are read once."""
    node = sole_producer(value)
    if node is None:
        return None
    activation = None
    if node.op_type != "Conv":
        inside = input_at(node, 0)
        if inside is None or activation_of(inside) is not node:
            return None
        activation, node = node, inside.producer()
    layer = None if node is None else read_convolution(node)
    if node is None or layer is None or not layer.keeps_size or doubled_image(node.inputs[0]) is None:
        return None
    return node, layer, activation


def _replace(graph: ir.Graph, node: ir.Node, head: Convolution) -> None:
    origin = _origin(node.inputs[0])
    assert origin is not None
    first, layer, activation = origin
    doubled, target = doubled_image(first.inputs[0]), node.outputs[0]
    assert doubled is not None
    image, rows, columns = doubled
    first_bias = input_at(first, 2)
    outputs, tape = len(head.weight), GraphTape(graph, target.name)
    bias = None if head.bias is None else tape.constant(np.repeat(head.bias, 4), name="repeated")
    parts: list[ir.Value] = []
    for a, b in itertools.product((0, 1), repeat=2):
        # Even rows are parity 1 of `PARITY_TAPS`: they read the rows i - 1 and i.
        weight = np.einsum(
            "ps,qt,oist->oipq", PARITY_TAPS[1 - a], PARITY_TAPS[1 - b], layer.weight.astype(float)
        )
        part = _convolve(tape, image, f"part_{a}{b}", weight, first_bias, [1 - a, 1 - b, a, b])
        if activation is not None:
            part = tape.op(activation.op_type, [part], dict(activation.attributes))
        weight = np.einsum("Aps,Bqt,oist->oABipq", _HEAD_TAPS[a], _HEAD_TAPS[b], head.weight.astype(float))
        weight = weight.reshape(4 * outputs, *weight.shape[3:])
        part = _convolve(tape, part, f"head_{a}{b}", weight, None if parts else bias, [a, b, 1 - a, 1 - b])
        parts = [tape.add("Add", *parts, part) if parts else part]
    _interleave(tape, parts[0], outputs, rows, columns)
    logger.debug("%s: computed from the parities of rows and columns", target.name)
    tape.replace([node, *([] if activation is None else [activation]), first], target)


def _convolve(
    tape: GraphTape, value: ir.Value, name: str, weight: NDArray, bias: ir.Value | None, pads: list[int]
) -> ir.Value:
    inputs = [value, tape.constant(weight.astype(np.float32), name=name)]
    return tape.add("Conv", *inputs, *([] if bias is None else [bias]), kernel_shape=[2, 2], pads=pads)


def _interleave(tape: GraphTape, value: ir.Value, channels: int, rows: int, columns: int) -> ir.Value:
    """Interleave the pixels of four images: [B, (channel, row parity, column parity), rows, columns] to one image.

    Returns [B, channels, 2 rows, 2 columns].
    """
    # Columns first: runs of pixels are then copied as whole rows.
    value = tape.add("Reshape", value, tape.integers(0, 2 * channels, 2, rows * columns, name="parities"))
    value = tape.add("Transpose", value, perm=[0, 1, 3, 2])
    shape = tape.integers(0, channels, 2, rows, 2 * columns, name="columns")
    value = tape.add("Reshape", value, shape)
    value = tape.add("Transpose", value, perm=[0, 1, 3, 2, 4])
    return tape.add("Reshape", value, tape.integers(0, channels, 2 * rows, 2 * columns, name="pixels"))
