"""Convolve an image before its pixels are repeated instead of afterwards, with four ninths of the products."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import GraphTape, is_read_once
from ptychonnx.export.passes.convolution_attributes import Convolution, read_convolution
from ptychonnx.export.passes.nearest_resize import doubled_image
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["PARITY_TAPS", "SubpixelConvolutionPass", "activation_of", "becomes_subpixel_convolution"]

logger = logging.getLogger(__name__)

# With fewer, interleaving the pixels takes as long as the products that are saved.
_FEWEST_CHANNELS = 32
# [parity, tap of the small image, tap of the large one]. Rows 2 i - 1 (parity 0) and 2 i (parity 1) of the convolved
# large image read its rows 2 i - 2 .. 2 i + 1, which are the rows i - 1, i - 1, i, i of the small one.
PARITY_TAPS = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], dtype=np.float64)
_POINTWISE = {"Relu", "LeakyRelu", "Gelu", "Sigmoid", "Tanh"}


class SubpixelConvolutionPass(NodeRewritePass):
    """``Resize, Conv`` becomes ``Conv, Transpose, Reshape, Transpose, Reshape, Slice, Transpose``.

    The `Resize` repeats each row and column once (nearest); the convolution is 3 x 3 with zero padding. Only four of
    the nine pixels under its kernel are different, so that 2 x 2 convolutions of the small image, one for each parity
    of row and column, compute the same: the weights of equal pixels are added in float64 and rounded once. Outputs
    differ by rounding (below 1e-6 of the largest). At the borders, the 2 x 2 kernel has n + 1 positions along n rows,
    each of which computes the rows 2 i - 1 and 2 i; the outermost rows are cut off.

    Pixels are interleaved with the channels last, so that whole pixels are moved: exchanging single numbers takes
    onnxruntime many times as long, most of all on several threads. onnxruntime transposes to that layout and back
    around a convolution anyway. An activation after the convolution comes before the transpositions, so that engines
    can fuse the two.

    Images of fewer than 32 channels are left as they are.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network", CVPR 2016, learn such layers.
    """

    operators = frozenset({"Resize"})

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        layer = read_convolution(node)
        if layer is None or not becomes_subpixel_convolution(layer, node.inputs[0]):
            return False
        _replace(graph, node, layer)
        return True


def becomes_subpixel_convolution(layer: Convolution, value: ir.Value | None) -> bool:
    """Whether the pass rewrites a convolution of this value."""
    return layer.keeps_size and doubled_image(value) is not None and layer.weight.shape[1] >= _FEWEST_CHANNELS


def activation_of(value: ir.Value) -> ir.Node | None:
    """The only reader of a value, if it is an activation."""
    if not is_read_once(value):
        return None
    (use,) = value.uses()
    return use.node if use.node.op_type in _POINTWISE else None


def _replace(graph: ir.Graph, node: ir.Node, layer: Convolution) -> None:
    doubled, target = doubled_image(node.inputs[0]), node.outputs[0]
    assert doubled is not None
    image, rows, columns = doubled
    tape = GraphTape(graph, target.name)
    inputs = [image, tape.constant(_weights(layer.weight), name="subpixels")]
    if layer.bias is not None:
        inputs.append(tape.constant(np.tile(layer.bias, 4), name="repeated"))
    value = tape.add("Conv", *inputs, kernel_shape=[2, 2], pads=[1, 1, 1, 1])
    replaced = [node]
    activation = activation_of(target)
    if activation is not None:
        value = tape.op(activation.op_type, [value], dict(activation.attributes))
        replaced, target = [activation, node], activation.outputs[0]
    _interleave(tape, value, len(layer.weight), rows + 1, columns + 1)
    logger.debug("%s: convolved before its pixels are repeated", target.name)
    tape.replace(replaced, target)


def _interleave(tape: GraphTape, value: ir.Value, channels: int, rows: int, columns: int) -> ir.Value:
    """Interleave the pixels of four images, and cut the outermost rows and columns off.

    `value`: [B, (row parity, column parity, channel), rows, columns].
    Returns [B, channels, 2 rows - 2, 2 columns - 2].
    """
    value = tape.add("Transpose", value, perm=[0, 2, 3, 1])
    shape = tape.integers(0, rows, columns, 2, 2 * channels, name="parities")
    value = tape.add("Reshape", value, shape)
    value = tape.add("Transpose", value, perm=[0, 1, 3, 2, 4])
    shape = tape.integers(0, 2 * rows, 2 * columns, channels, name="pixels")
    value = tape.add("Reshape", value, shape)
    ends = tape.integers(2 * rows - 1, 2 * columns - 1, name="ends")
    starts, axes = tape.integers(1, 1, name="starts"), tape.integers(1, 2, name="axes")
    value = tape.add("Slice", value, starts, ends, axes)
    return tape.add("Transpose", value, perm=[0, 3, 1, 2])


def _weights(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """[O, I, 3, 3] to [(row parity, column parity, O), I, 2, 2]."""
    outputs, inputs = weight.shape[:2]
    small = np.einsum("aps,bqt,oist->aboipq", PARITY_TAPS, PARITY_TAPS, weight.astype(np.float64))
    return small.reshape(4 * outputs, inputs, 2, 2).astype(np.float32)
