"""Float64 inside a graph as float32, for operators that engines have in float32 alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.graph.inspection import all_graphs
from ptychonnx.export.graph.tensor_names import rename_reads

__all__ = ["has_float64", "narrowed"]


def has_float64(model: onnx.ModelProto) -> bool:
    """Whether a graph computes in float64."""
    graph = model.graph
    types = {value.type.tensor_type.elem_type for value in graph.input}
    types |= {tensor.data_type for tensor in graph.initializer}
    attributes = (one for inner in all_graphs(graph) for node in inner.node for one in node.attribute)
    return TensorProto.DOUBLE in types or any(
        attribute.name == "to" and attribute.i == TensorProto.DOUBLE for attribute in attributes
    )


def narrowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float32; inputs and outputs keep their types by casts at the border."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for graph in all_graphs(result.graph):
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
            rename_reads(graph, value.name, inner)
            first.append(helper.make_node("Cast", [value.name], [inner], to=TensorProto.FLOAT))
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            inner = f"{value.name}_float"
            rename_reads(graph, value.name, inner)
            for node in graph.node:
                node.output[:] = [inner if name == value.name else name for name in node.output]
            last.append(helper.make_node("Cast", [inner], [value.name], to=TensorProto.DOUBLE))
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)


def _narrow_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.DOUBLE:
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
