"""Folds what only scales and shifts channels into the weights before it."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["AffineFoldingPass"]

logger = logging.getLogger(__name__)


class AffineFoldingPass(ir.passes.InPlacePass):
    """``y = scale * x + offset`` behind a convolution or matrix product becomes part of its weights.

    * ``Conv, BatchNormalization`` in inference, ``Conv, Mul`` and ``Conv, Add`` with a constant of one value a
      channel, or of one value in all, become one ``Conv``.
    * The same for ``ConvTranspose`` of one group and for ``Gemm`` without scalars.
    * ``MatMul, Mul`` with a constant of one value a column, or of one in all, becomes one ``MatMul`` if the
      second factor is the constant one.

    The new weights are computed in float64 and rounded once, so outputs differ by rounding (below 1e-6 of the
    largest). Weights that another node reads too, and values that are read elsewhere, are left as they are.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        while any(_fold(model.graph, node) for node in model.graph):
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    found = _affine(node)
    if found is None:
        return False
    source, scale, offset = found
    layer = source.producer()
    if layer is None or layer.op_type not in _LAYERS or len(source.uses()) != 1 or source.is_graph_output():
        return False
    weight = _constant(layer.inputs[1])
    bias_value = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias = None if bias_value is None else _constant(bias_value)
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
    scale_by, offset_by = (_each_channel(part, rank, position, channels) for part in (scale, offset))
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
        inputs.append(_initialiser(graph, name, new_bias))
    joined = ir.node(layer.op_type, inputs, dict(layer.attributes))
    target = node.outputs[0]
    logger.debug("%s: %s folded into %s", target.name, node.op_type, layer.op_type)
    ir.convenience.replace_nodes_and_values(
        graph, node, [node, layer], [joined], [target], [joined.outputs[0]]
    )
    return True


_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def _affine(node: ir.Node) -> tuple[ir.Value, NDArray, NDArray] | None:
    """(x, scale, offset) of a node that computes ``scale * x + offset`` with constants that broadcast."""
    if node.op_type == "BatchNormalization":
        parts = [_constant(value) for value in node.inputs[1:5]]
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
        constant = _constant(other)
        if value is not None and constant is not None and _constant(value) is None:
            wide = constant.astype(np.float64)
            if node.op_type == "Mul":
                return value, wide, np.zeros(1)
            return value, np.ones(1), wide
    return None


def _output_axis(layer: ir.Node, rank: int) -> int | None:
    """Axis of the weights that counts output channels."""
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "ConvTranspose":
        return 1 if layer.attributes.get_int("group", 1) == 1 else None
    if layer.op_type == "Gemm":
        plain = all(layer.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        return (0 if layer.attributes.get_int("transB", 0) else 1) if plain else None
    return rank - 1 if rank >= 2 else None


def _each_channel(part: NDArray, rank: int, position: int, channels: int) -> NDArray | None:
    """One value a channel of an array that broadcasts against values of some rank; None if it varies otherwise."""
    if part.size == 1:
        return np.full(channels, part.reshape(()))
    if part.ndim > rank:
        return None
    shape = (*([1] * (rank - part.ndim)), *part.shape)
    return part.reshape(-1) if shape[position] == channels == part.size else None


def _constant(value: ir.Value | None) -> NDArray | None:
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor.numpy()


def _keep(graph: ir.Graph, value: ir.Value | None, new: NDArray, old: NDArray) -> ir.Value | None:
    """The weights themselves if they are the same, so that they stay recognisable."""
    return value if value is None or np.array_equal(new, old) else _initialiser(graph, value.name, new)


def _initialiser(graph: ir.Graph, name: str | None, values: NDArray) -> ir.Value:
    # A dotted name without a number is that of a parameter: this is none any more.
    unique = f"{name}.folded"
    while unique in graph.initializers:
        unique += "_"
    value = ir.val(unique, const_value=ir.tensor(values, name=unique))
    graph.register_initializer(value)
    return value
