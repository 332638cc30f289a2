"""Biases of convolutions: that of one branch of a sum joins that of the convolution in the other branch."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import add_constant, float_constant, input_at, known_sizes, sole_producer
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["BiasMergingPass", "InvalidBiasPass"]

logger = logging.getLogger(__name__)


class InvalidBiasPass(NodeRewritePass):
    """Remove zeros [channels, 2] from a convolution: torch's exporter gives them to one over three axes that has no
    bias, and ONNX takes a bias [channels] only.
    """

    operators = frozenset({"Conv"})
    infers_shapes = False

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        bias = float_constant(input_at(node, 2)) if node.op_type == "Conv" else None
        if bias is None or bias.ndim == 1 or bias.any():
            return False
        node.resize_inputs(2)
        return True


class BiasMergingPass(NodeRewritePass):
    """``(x + c) + Conv(y)`` becomes ``x + Conv(y)`` with ``c`` in the bias of the convolution.

    The constant has one value per channel; a `Reshape` of pixels may follow the first sum, as in a lowered
    Fourier layer in parallel with the convolution of a block. This saves one traversal of the image. The two biases
    are added in float64 and rounded once, so outputs differ by rounding (below 1e-6 of the largest). Values that are
    read elsewhere are left as they are.
    """

    operators = frozenset({"Add", "Conv"})
    infers_shapes = False
    repeats = True

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        return node.op_type == "Add" and _merge(graph, node)


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    for branch, other_branch in (node.inputs[:2], node.inputs[1::-1]):
        layer = sole_producer(other_branch, {"Conv"})
        if layer is None or branch is None:
            continue
        weight, bias = (float_constant(input_at(layer, index)) for index in (1, 2))
        if weight is None or (bias is None and len(layer.inputs) > 2):
            continue
        reshape = sole_producer(branch, {"Reshape"})
        total = sole_producer(branch if reshape is None else reshape.inputs[0], {"Add"})
        if total is None or (reshape is not None and not _keeps_channels(reshape, len(weight))):
            continue
        for value, other in (total.inputs[:2], total.inputs[1::-1]):
            constant = float_constant(other)
            rank = None if value is None or value.shape is None else len(value.shape)
            if constant is None or rank is None or not _is_bias(constant, rank, len(weight)):
                continue
            old = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
            _rewire(graph, total, value, layer, (old + constant.reshape(-1)).astype(np.float32))
            logger.debug("%s: bias merged into that of %s", node.outputs[0].name, layer.name)
            return True
    return False


def _rewire(
    graph: ir.Graph, total: ir.Node, value: ir.Value | None, layer: ir.Node, bias: NDArray[np.float32]
) -> None:
    assert value is not None
    ir.convenience.replace_all_uses_with(total.outputs[0], value)
    graph.remove(total, safe=True)
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    layer.replace_input_with(2, add_constant(graph, f"{layer.outputs[0].name}.joined", bias))


def _keeps_channels(reshape: ir.Node, channels: int) -> bool:
    """Whether only pixels are regrouped, with batch and channels as the first two axes."""
    shapes = [known_sizes(value) or [] for value in (reshape.inputs[0], reshape.outputs[0])]
    return all(len(shape) > 2 and shape[1] == channels for shape in shapes)


def _is_bias(constant: NDArray, rank: int, channels: int) -> bool:
    shape = (*([1] * (rank - constant.ndim)), *constant.shape)
    return len(shape) == rank and constant.size == channels == shape[1]
