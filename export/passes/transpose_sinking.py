"""Sink transposes through elementwise operators so that they cancel."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from ptychonnx.export.graph.editing import GraphTape, constant_array, infer_shapes
from ptychonnx.export.passes.transpose_elimination import TransposeEliminationPass

__all__ = ["TransposeSinkingPass"]

logger = logging.getLogger(__name__)

_ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip"),
    *("Abs", "Neg", "Floor", "Ceil", "Sqrt", "Exp", "Log", "Sin", "Cos", "Erf"),
    *("Relu", "LeakyRelu", "Elu", "Gelu", "Sigmoid", "Softplus", "Tanh"),
    *("Cast", "Identity"),
}


class TransposeSinkingPass(ir.passes.InPlacePass):
    """``f(Transpose(a), Transpose(b))`` becomes ``Transpose(f(a, b))`` for elementwise f; values stay bit for bit.

    Constant inputs are transposed the other way. This is done on a copy, which replaces the graph only if fewer
    transpositions are left after neighbours are merged.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = _count(model.graph)
        if before < 2:
            return ir.passes.PassResult(model, modified=False)
        copied = model.clone()
        infer_shapes(copied)
        while any(_sink(copied.graph, node) for node in list(copied.graph)):
            pass
        TransposeEliminationPass()(copied)
        CommonSubexpressionEliminationPass()(copied)
        RemoveUnusedNodesPass()(copied)
        if _count(copied.graph) >= before:
            return ir.passes.PassResult(model, modified=False)
        logger.debug("%d of %d transpositions left", _count(copied.graph), before)
        model.graph = copied.graph
        return ir.passes.PassResult(model, modified=True)


def _count(graph: ir.Graph) -> int:
    return sum(node.op_type == "Transpose" for node in graph)


def _sink(graph: ir.Graph, node: ir.Node) -> bool:
    # A transposition at an output of the graph cannot cancel.
    if node.op_type not in _ELEMENTWISE or len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return False
    permutations: set[tuple[int, ...]] = set()
    for value in node.inputs:
        if value is None or constant_array(value) is not None:
            continue
        producer = value.producer()
        if producer is None or producer.op_type != "Transpose" or "perm" not in producer.attributes:
            return False
        permutations.add(tuple(producer.attributes["perm"].as_ints()))
    if len(permutations) != 1:
        return False
    (permutation,) = permutations
    target = node.outputs[0]
    tape = GraphTape(graph, target.name)
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        array = constant_array(value)
        if value is None or (array is not None and array.size == 1):
            inputs.append(value)
        elif array is not None:
            if array.ndim > len(permutation):
                return False
            wide = array.reshape((1,) * (len(permutation) - array.ndim) + array.shape)
            moved = wide.transpose(np.argsort(permutation))
            inputs.append(tape.constant(moved, name=f"input_{index}"))
        else:
            producer = value.producer()
            assert producer is not None
            inputs.append(producer.inputs[0])
    computed = tape.op(node.op_type, inputs, dict(node.attributes))
    if target.dtype is not None:
        computed.dtype = target.dtype
    tape.add("Transpose", computed, perm=permutation)
    tape.replace([node], target)
    return True
