"""Float64 inside a graph as float32, for operators that engines have in float32 alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.graph.inspection import graphs_inside

__all__ = ["has_float64", "narrowed"]


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
