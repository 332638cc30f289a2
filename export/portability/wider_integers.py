"""Small integers inside a graph as int32, for operators that onnxruntime has for wider ones alone."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from ptychonnx.export.graph.inspection import element_types
from ptychonnx.export.graph.opset import opset_of
from ptychonnx.export.portability.operator_table import has_kernel

__all__ = ["with_wider_integers"]

# Integers of fewer bits; sums and products wrap around in the same way if they are cut to these bits afterwards.
_SMALL = {TensorProto.DataType.Value(name) for name in ("BOOL", "INT8", "UINT8", "INT16", "UINT16")}


def with_wider_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with int32 in place of smaller integers around nodes that onnxruntime lacks for them."""
    result = onnx.shape_inference.infer_shapes(model)
    graph, opset = result.graph, opset_of(model)
    kinds = element_types(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        types = [kinds.get(name, 0) for name in node.input]
        names = tuple(TensorProto.DataType.Name(kind).lower() if kind else "" for kind in types)
        is_lacking = _SMALL.intersection(types) and not has_kernel("cpu", node, names, opset)
        nodes += _widened(node, kinds, opset) if is_lacking else [node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return result


def _widened(node: onnx.NodeProto, kinds: Mapping[str, int], opset: int) -> list[onnx.NodeProto]:
    """A node in int32, between casts."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    before, after, wide = [], [], set()
    for index, name in enumerate(node.input):
        variable = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
        if kinds.get(name) in _SMALL and variable.startswith("T"):
            node.input[index] = f"{node.output[0]}_input_{index}"
            before.append(helper.make_node("Cast", [name], [node.input[index]], to=TensorProto.INT32))
            wide.add(variable)
    for index, name in enumerate(node.output):
        if schema.outputs[min(index, len(schema.outputs) - 1)].type_str in wide:
            node.output[index] = f"{name}_int32"
            after.append(helper.make_node("Cast", [node.output[index]], [name], to=kinds[name]))
    return [*before, node, *after]
