"""Moves transpositions behind elementwise operators, where they meet others and go."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)

from ptychonnx.export.passes.transpose_elimination import TransposeCancellationPass

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

    Constants among the inputs are transposed the other way, when the graph is written. The moves are made on a
    copy, which replaces the graph only if fewer transpositions are left after those that meet are joined.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = _count(model.graph)
        if before < 2:
            return ir.passes.PassResult(model, modified=False)
        trial = model.clone()
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(trial)
        while any(_sink(trial.graph, node) for node in list(trial.graph)):
            pass
        TransposeCancellationPass()(trial)
        CommonSubexpressionEliminationPass()(trial)
        RemoveUnusedNodesPass()(trial)
        if _count(trial.graph) >= before:
            return ir.passes.PassResult(model, modified=False)
        logger.debug("%d of %d transpositions left", _count(trial.graph), before)
        model.graph = trial.graph
        return ir.passes.PassResult(model, modified=True)


def _count(graph: ir.Graph) -> int:
    return sum(node.op_type == "Transpose" for node in graph)


def _sink(graph: ir.Graph, node: ir.Node) -> bool:
    # A transposition that ends up at an output cannot meet another.
    if node.op_type not in _ELEMENTWISE or len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return False
    permutations: set[tuple[int, ...]] = set()
    for value in node.inputs:
        if value is None or _array(value) is not None:
            continue
        producer = value.producer()
        if producer is None or producer.op_type != "Transpose" or "perm" not in producer.attributes:
            return False
        permutations.add(tuple(producer.attributes["perm"].as_ints()))
    if len(permutations) != 1:
        return False
    (permutation,) = permutations
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        array = None if value is None else _array(value)
        if value is None or (array is not None and array.size == 1):
            inputs.append(value)
        elif array is not None:
            if array.ndim > len(permutation):
                return False
            wide = array.reshape((1,) * (len(permutation) - array.ndim) + array.shape)
            moved = wide.transpose(np.argsort(permutation))
            inputs.append(_constant(graph, f"{node.outputs[0].name}.input_{index}", moved))
        else:
            producer = value.producer()
            assert producer is not None
            inputs.append(producer.inputs[0])
    target = node.outputs[0]
    computed = ir.node(node.op_type, inputs, dict(node.attributes))
    moved_back = ir.node("Transpose", [computed.outputs[0]], {"perm": permutation})
    if target.dtype is not None:
        computed.outputs[0].dtype = target.dtype
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [computed, moved_back], [target], [moved_back.outputs[0]]
    )
    return True


def _array(value: ir.Value) -> np.ndarray | None:
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _constant(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(values), name=name))
    graph.register_initializer(value)
    return value
