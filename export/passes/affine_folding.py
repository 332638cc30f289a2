"""Fold scales and offsets of channels into the weights of the layer before them."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import (
    add_constant,
    float_constant,
    input_at,
    replace_nodes,
    sole_producer,
)
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["AffineFoldingPass"]

logger = logging.getLogger(__name__)

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


class AffineFoldingPass(NodeRewritePass):
    """``y = scale * x + offset`` after a convolution or matrix product becomes part of its weights.

    * ``Conv, BatchNormalization`` in inference, ``Conv, Mul`` and ``Conv, Add`` with a constant of one value
      per channel, or of one value in all, become one ``Conv``.
    * The same for ``ConvTranspose`` of one group and for ``Gemm`` with scalars of 1.
    * ``MatMul, Mul`` with a constant of one value per column, or of one in all, becomes one ``MatMul`` if the
      second factor is the constant one.

    The new weights are computed in float64 and rounded once, so outputs differ by rounding (below 1e-6 of the
    largest). Weights that another node reads too, and values that are read elsewhere, are left as they are.
    """

    infers_shapes = False
    repeats = True

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        affine = _affine(node)
        layer = None if affine is None else sole_producer(affine[0], _LAYERS)
        return affine is not None and layer is not None and _fold(graph, node, layer, *affine)


def _fold(
    graph: ir.Graph, node: ir.Node, layer: ir.Node, source: ir.Value, scale: NDArray, offset: NDArray
) -> bool:
    weight = float_constant(layer.inputs[1])
    bias_value = input_at(layer, 2)
    bias = float_constant(bias_value)
    if weight is None or (bias_value is not None and bias is None):
        return False
    if any(len(value.uses()) != 1 for value in (layer.inputs[1], bias_value) if value is not None):
        return False
    axis = _output_axis(layer, weight.ndim)
    if axis is None:
        return False
    channels = weight.shape[axis]
    rank = len(source.shape) if source.shape is not None else weight.ndim
    position = rank - 1 if layer.op_type in ("MatMul", "Gemm") else 1
    scale_by, offset_by = (_by_channel(part, rank, position, channels) for part in (scale, offset))
    if scale_by is None or offset_by is None:
        return False
    if layer.op_type == "MatMul" and np.any(offset_by):
        return False
    shape = [1] * weight.ndim
    shape[axis] = channels
    new_weight = (weight.astype(np.float64) * scale_by.reshape(shape)).astype(weight.dtype)
    old_bias = np.zeros(channels) if bias is None else np.broadcast_to(bias.astype(np.float64), channels)
    new_bias = (old_bias * scale_by + offset_by).astype(weight.dtype)

    inputs: list[ir.Value | None] = [layer.inputs[0], _keep(graph, layer.inputs[1], new_weight, weight)]
    if bias_value is not None or np.any(new_bias):
        name = f"{source.name}.bias" if bias_value is None else bias_value.name
        inputs.append(_folded(graph, name, new_bias))
    joined = ir.node(layer.op_type, inputs, dict(layer.attributes))
    target = node.outputs[0]
    logger.debug("%s: %s folded into %s", target.name, node.op_type, layer.op_type)
    replace_nodes(graph, [node, layer], [joined], target)
    return True


def _affine(node: ir.Node) -> tuple[ir.Value, NDArray, NDArray] | None:
    """(x, scale, offset) of a node that computes ``scale * x + offset`` with constants that broadcast."""
    if node.op_type == "BatchNormalization":
        parts = [float_constant(value) for value in node.inputs[1:5]]
        training = node.attributes.get_int("training_mode", 0)
        if node.inputs[0] is None or training or any(part is None for part in parts):
            return None
        gamma, beta, mean, variance = (np.asarray(part, dtype=np.float64) for part in parts)
        scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        rank = len(node.inputs[0].shape) if node.inputs[0].shape is not None else 4
        shape = (-1, *([1] * (rank - 2)))
        return node.inputs[0], scale.reshape(shape), (beta - mean * scale).reshape(shape)
    if node.op_type not in ("Mul", "Add"):
        return None
    for value, other in (node.inputs[:2], node.inputs[1::-1]):
        constant = float_constant(other)
        if value is not None and constant is not None and float_constant(value) is None:
            wide = constant.astype(np.float64)
            if node.op_type == "Mul":
                return value, wide, np.zeros(1)
            return value, np.ones(1), wide
    return None


def _output_axis(layer: ir.Node, rank: int) -> int | None:
    """Axis of the output channels in the weights."""
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "ConvTranspose":
        return 1 if layer.attributes.get_int("group", 1) == 1 else None
    if layer.op_type == "Gemm":
        plain = all(layer.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        return (0 if layer.attributes.get_int("transB", 0) else 1) if plain else None
    return rank - 1 if rank >= 2 else None


def _by_channel(part: NDArray, rank: int, position: int, channels: int) -> NDArray | None:
    """One value per channel of an array that broadcasts to `rank` axes; None if it varies along another axis."""
    if part.size == 1:
        return np.full(channels, part.reshape(()))
    if part.ndim > rank:
        return None
    shape = (*([1] * (rank - part.ndim)), *part.shape)
    return part.reshape(-1) if shape[position] == channels == part.size else None


def _keep(graph: ir.Graph, value: ir.Value | None, new: NDArray, old: NDArray) -> ir.Value | None:
    """The weights themselves if they did not change, so that they can still be recognised."""
    return value if value is None or np.array_equal(new, old) else _folded(graph, value.name, new)


def _folded(graph: ir.Graph, name: str | None, values: NDArray) -> ir.Value:
    # A dotted name without this suffix would be the name of a parameter of the framework.
    return add_constant(graph, f"{name}.folded", values)
