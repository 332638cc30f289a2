"""Convolves an image before its pixels are repeated instead of after: four ninths of the products."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from ptychonnx.export.passes.convolution_attributes import (
    Convolution,
    doubled,
    make_constant,
    read_convolution,
)

__all__ = ["PARITY_TAPS", "SubpixelPass", "is_worth_subpixels", "pointwise_reader"]

logger = logging.getLogger(__name__)

# With fewer, putting the pixels into their places takes as long as the products that are saved.
_FEWEST_CHANNELS = 32
# [parity, tap of the small image, tap of the large one]. Rows 2 i - 1 (parity 0) and 2 i (parity 1) of the convolved
# large image read its rows 2 i - 2 .. 2 i + 1, which are the rows i - 1, i - 1, i, i of the small one.
PARITY_TAPS = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], dtype=np.float64)
_POINTWISE = {"Relu", "LeakyRelu", "Gelu", "Sigmoid", "Tanh"}


class SubpixelPass(ir.passes.InPlacePass):
    """``Resize, Conv`` becomes ``Conv, Transpose, Reshape, Transpose, Reshape, Slice, Transpose``.

    The `Resize` repeats each row and column once (nearest), the convolution is 3 x 3 with zeros around. Of nine
    pixels under its kernel four are different, so that 2 x 2 convolutions of the small image, one for each parity
    of row and column, give the same: the weights of equal pixels are added, in float64, and rounded once. Outputs
    differ by rounding (below 1e-6 of the largest), at the borders too: around n rows there are n + 1 places for
    the 2 x 2 kernel, each of which gives the rows 2 i - 1 and 2 i, and the outermost rows are cut off.

    Pixels are put into their places with the channels last, so that whole pixels are moved: exchanging single numbers
    takes onnxruntime many times as long, most of all on several threads. The transpositions to that layout and back
    are part of what onnxruntime does before and after a convolution anyway. An activation behind the convolution goes
    before them, so that engines can fuse the two.

    Images of fewer than 32 channels are left as they are.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network", CVPR 2016, learn such layers.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not any(node.op_type == "Resize" for node in model.graph):
            return ir.passes.PassResult(model, modified=False)
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        replaced = sum(_replace(model.graph, node) for node in list(model.graph))
        return ir.passes.PassResult(model, modified=replaced > 0)


def is_worth_subpixels(layer: Convolution, value: ir.Value | None) -> bool:
    """Whether the pass takes a convolution of this value."""
    return layer.is_same and doubled(value) is not None and layer.weight.shape[1] >= _FEWEST_CHANNELS


def pointwise_reader(value: ir.Value) -> ir.Node | None:
    """The only reader of a value, if it is an activation."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type not in _POINTWISE:
        return None
    return uses[0].node


def _replace(graph: ir.Graph, node: ir.Node) -> bool:
    layer = read_convolution(node)
    if layer is None or not is_worth_subpixels(layer, node.inputs[0]):
        return False
    small, target = doubled(node.inputs[0]), node.outputs[0]
    assert small is not None
    label = target.name
    inputs: list[ir.Value | None] = [
        small.value,
        make_constant(graph, f"{label}.subpixels", _weights(layer.weight)),
    ]
    if layer.bias is not None:
        inputs.append(make_constant(graph, f"{label}.repeated", np.tile(layer.bias, 4)))
    nodes = [ir.node("Conv", inputs, {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]})]
    replaced = [node]
    activation = pointwise_reader(target)
    if activation is not None:
        nodes.append(ir.node(activation.op_type, nodes[-1].outputs, dict(activation.attributes)))
        replaced, target = [activation, node], activation.outputs[0]
    nodes += _placed(graph, nodes[-1].outputs[0], len(layer.weight), small.rows + 1, small.columns + 1, label)
    ir.convenience.replace_nodes_and_values(
        graph, replaced[0], replaced, nodes, [target], [nodes[-1].outputs[0]]
    )
    logger.debug("%s: convolved before its pixels are repeated", label)
    return True


def _placed(
    graph: ir.Graph, value: ir.Value, channels: int, rows: int, columns: int, label: str | None
) -> list[ir.Node]:
    """Nodes that put the pixels of four images into one, without its outermost rows and columns.

    Parameters
    ----------
    value
        [B, (row parity, column parity, channel), rows, columns].
    label
        Beginning of the names of new constants.

    Returns
    -------
    Of which the last gives [B, channels, 2 rows - 2, 2 columns - 2].
    """

    def constant(kind: str, *numbers: int) -> ir.Value:
        return make_constant(graph, f"{label}.{kind}", np.array(numbers, dtype=np.int64))

    nodes = [ir.node("Transpose", [value], {"perm": [0, 2, 3, 1]})]
    shape = constant("parities", 0, rows, columns, 2, 2 * channels)
    nodes.append(ir.node("Reshape", [*nodes[-1].outputs, shape]))
    nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": [0, 1, 3, 2, 4]}))
    shape = constant("pixels", 0, 2 * rows, 2 * columns, channels)
    nodes.append(ir.node("Reshape", [*nodes[-1].outputs, shape]))
    ends = constant("ends", 2 * rows - 1, 2 * columns - 1)
    inputs = [*nodes[-1].outputs, constant("starts", 1, 1), ends, constant("axes", 1, 2)]
    nodes.append(ir.node("Slice", inputs))
    nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": [0, 3, 1, 2]}))
    return nodes


def _weights(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """[O, I, 3, 3] to [(row parity, column parity, O), I, 2, 2]."""
    outputs, inputs = weight.shape[:2]
    small = np.einsum("aps,bqt,oist->aboipq", PARITY_TAPS, PARITY_TAPS, weight.astype(np.float64))
    return small.reshape(4 * outputs, inputs, 2, 2).astype(np.float32)
