"""Other types inside a graph, for operators that onnxruntime has for some types alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.graph.inspection import graphs_inside
from ptychonnx.export.graph.opset import opset_of
from ptychonnx.export.portability import has_kernel

__all__ = ["has_float64", "narrowed", "with_wider_integers"]

# Integers of fewer bits; sums and products wrap around in the same way if they are cut to these bits afterwards.
_SMALL = {TensorProto.DataType.Value(name) for name in ("BOOL", "INT8", "UINT8", "INT16", "UINT16")}


def with_wider_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with int32 in place of smaller integers around nodes that onnxruntime lacks for them."""
    result = onnx.shape_inference.infer_shapes(model)
    graph, opset = result.graph, opset_of(model)
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kinds[value.name] = value.type.tensor_type.elem_type
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


def has_float64(model: onnx.ModelProto) -> bool:
    """Whether a graph computes in float64."""
    if any(value.type.tensor_type.elem_type == TensorProto.DOUBLE for value in model.graph.input):
        return True
    return any(tensor.data_type == TensorProto.DOUBLE for tensor in model.graph.initializer) or any(
        _target(node) == TensorProto.DOUBLE for graph in _graphs(model.graph) for node in graph.node
    )


def narrowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float32; inputs and outputs keep their types by casts at the border."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for graph in _graphs(result.graph):
        del graph.value_info[:]
        for tensor in graph.initializer:
            _narrow_tensor(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == TensorProto.DOUBLE:
                    attribute.i = TensorProto.FLOAT
                if attribute.HasField("t"):
                    _narrow_tensor(attribute.t)
    _cast_border(result.graph)
    return result


def _cast_border(graph: onnx.GraphProto) -> None:
    first, last = [], []
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            inner = f"{value.name}_float"
            for node in graph.node:
                node.input[:] = [inner if name == value.name else name for name in node.input]
            first.append(helper.make_node("Cast", [value.name], [inner], to=TensorProto.FLOAT))
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            inner = f"{value.name}_float"
            for node in graph.node:
                node.input[:] = [inner if name == value.name else name for name in node.input]
                node.output[:] = [inner if name == value.name else name for name in node.output]
            last.append(helper.make_node("Cast", [inner], [value.name], to=TensorProto.DOUBLE))
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in graphs_inside(node):
            yield from _graphs(inner)


def _target(node: onnx.NodeProto) -> int | None:
    return next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)


def _narrow_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.DOUBLE:
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
