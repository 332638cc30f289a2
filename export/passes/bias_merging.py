"""Joins the bias of one branch of a sum with that of the convolution in the other."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["BiasJoiningPass"]

logger = logging.getLogger(__name__)


class BiasJoiningPass(ir.passes.InPlacePass):
    """``(x + c) + Conv(y)`` becomes ``x + Conv(y)`` with ``c`` in the bias of the convolution.

    The constant has one value a channel; a `Reshape` of pixels may stand behind its sum, as in a lowered
    Fourier layer beside the convolution of a block. One pass over the image less; the two biases are added
    in float64 and rounded once, so outputs differ by rounding (below 1e-6 of the largest). Values that are read
    elsewhere are left as they are.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        while any(_join(model.graph, node) for node in model.graph):
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _join(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type != "Add":
        return False
    for branch, beside in (node.inputs[:2], node.inputs[1::-1]):
        layer = _only_reader(beside, "Conv")
        if layer is None or branch is None:
            continue
        weight, bias = (
            _constant(layer.inputs[index]) if len(layer.inputs) > index else None for index in (1, 2)
        )
        if weight is None or (bias is None and len(layer.inputs) > 2):
            continue
        reshape = _only_reader(branch, "Reshape")
        total = _only_reader(branch if reshape is None else reshape.inputs[0], "Add")
        if total is None or (reshape is not None and not _keeps_channels(reshape, len(weight))):
            continue
        for value, other in (total.inputs[:2], total.inputs[1::-1]):
            constant = _constant(other)
            rank = None if value is None or value.shape is None else len(value.shape)
            if constant is None or rank is None or not _is_bias(constant, rank, len(weight)):
                continue
            old = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
            _rewire(graph, total, value, layer, (old + constant.reshape(-1)).astype(np.float32))
            logger.debug("%s: bias joined with that of %s", node.outputs[0].name, layer.name)
            return True
    return False


def _rewire(
    graph: ir.Graph, total: ir.Node, value: ir.Value | None, layer: ir.Node, bias: NDArray[np.float32]
) -> None:
    assert value is not None
    ir.convenience.replace_all_uses_with(total.outputs[0], value)
    graph.remove(total, safe=True)
    name = f"{layer.outputs[0].name}.joined"
    while name in graph.initializers:
        name += "_"
    joined = ir.val(name, const_value=ir.tensor(bias, name=name))
    graph.register_initializer(joined)
    if len(layer.inputs) > 2:
        layer.replace_input_with(2, joined)
    else:
        layer.resize_inputs(3)
        layer.replace_input_with(2, joined)


def _only_reader(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that gives a value, if it is of this kind and nobody else reads the value."""
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    producer = value.producer()
    return producer if producer is not None and producer.op_type == operator else None


def _keeps_channels(reshape: ir.Node, channels: int) -> bool:
    """Whether pixels are regrouped only: batch and channels stay the first two axes."""
    shapes = [value.shape if value is not None else None for value in (reshape.inputs[0], reshape.outputs[0])]
    return all(shape is not None and len(shape) > 2 and shape[1] == channels for shape in shapes)


def _is_bias(constant: NDArray, rank: int, channels: int) -> bool:
    shape = (*([1] * (rank - constant.ndim)), *constant.shape)
    return len(shape) == rank and constant.size == channels == shape[1]


def _constant(value: ir.Value | None) -> NDArray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor.numpy()
