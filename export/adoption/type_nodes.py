"""Casts of patterns as nodes of a graph, and graphs in single instead of double precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from ptychonnx.export.adoption.foreign_types import type_limits

if TYPE_CHECKING:
    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["cast_in_graph", "in_single_precision"]


def cast_in_graph(tape: GraphTape, value: ir.Value, dtype: np.dtype) -> ir.Value:
    """`cast_patterns` as nodes of a graph."""
    if dtype == np.float32:
        return value
    if dtype != np.float64:
        if dtype.kind in "iu":
            value = tape.add("Round", value)
        lowest, highest = type_limits(dtype)
        value = tape.add("Clip", value, tape.constant(lowest), tape.constant(highest))
    return tape.add("Cast", value, to=int(ir.DataType.from_numpy(dtype)))


def in_single_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with float32 for every float64; the graph itself if it has none.

    Engines have few operators for float64, and GPUs compute slowly in it.
    """
    graph = ir.from_proto(model)
    changed = False
    for value in graph.graph.initializers.values():
        if value.dtype == ir.DataType.DOUBLE and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype, changed = ir.DataType.FLOAT, True
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        if value.dtype == ir.DataType.DOUBLE:
            value.dtype, changed = ir.DataType.FLOAT, True
    for node in ir.traversal.RecursiveGraphIterator(graph.graph):
        changed |= _single_precision_attributes(node)
        for value in node.outputs:
            if value.dtype == ir.DataType.DOUBLE:
                value.dtype = ir.DataType.FLOAT
    return ir.to_proto(graph) if changed else model


def _single_precision_attributes(node: ir.Node) -> bool:
    """Change attributes that create float64 values: those of Cast, Constant, ConstantOfShape and random operators."""
    changed = False
    for attribute in list(node.attributes.values()):
        if attribute.name in ("to", "dtype") and attribute.value == onnx.TensorProto.DOUBLE:
            node.attributes[attribute.name] = ir.AttrInt64(attribute.name, onnx.TensorProto.FLOAT)
            changed = True
        elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == ir.DataType.DOUBLE:
            tensor = ir.tensor(attribute.value.numpy().astype(np.float32))
            node.attributes[attribute.name] = ir.AttrTensor(attribute.name, tensor)
            changed = True
    return changed
