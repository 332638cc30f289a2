"""Casts of patterns as nodes of a graph, and graphs in single instead of double precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from ptychonnx.export.adoption.foreign_types import type_limits

if TYPE_CHECKING:
    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["cast_in_graph", "has_half_precision", "in_single_precision"]

_OTHER_PRECISIONS = (ir.DataType.DOUBLE, ir.DataType.FLOAT16)


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


def has_half_precision(model: onnx.ModelProto) -> bool:
    """Whether inputs, outputs or weights are float16."""
    half = onnx.TensorProto.FLOAT16
    values = (*model.graph.input, *model.graph.output)
    return any(value.type.tensor_type.elem_type == half for value in values) or any(
        tensor.data_type == half for tensor in model.graph.initializer
    )


def in_single_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with float32 for every float64 and float16; the graph itself if it has none.

    Engines have few operators for float64, and compute in float16 with different rounding.
    """
    converted = ir.from_proto(model)
    changed = False
    for value in converted.graph.initializers.values():
        if value.dtype in _OTHER_PRECISIONS and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype, changed = ir.DataType.FLOAT, True
    for value in (*converted.graph.inputs, *converted.graph.outputs):
        if value.dtype in _OTHER_PRECISIONS:
            value.dtype, changed = ir.DataType.FLOAT, True
    for node in ir.traversal.RecursiveGraphIterator(converted.graph):
        changed |= _single_precision_attributes(node)
        for value in node.outputs:
            if value.dtype in _OTHER_PRECISIONS:
                value.dtype = ir.DataType.FLOAT
    return ir.to_proto(converted) if changed else model


def _single_precision_attributes(node: ir.Node) -> bool:
    """Change attributes that set the type of values: those of Cast, Constant, ConstantOfShape and random operators."""
    changed = False
    for attribute in list(node.attributes.values()):
        if attribute.name in ("to", "dtype") and attribute.value in _OTHER_PRECISIONS:
            node.attributes[attribute.name] = ir.AttrInt64(attribute.name, int(ir.DataType.FLOAT))
            changed = True
        elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in _OTHER_PRECISIONS:
            tensor = ir.tensor(attribute.value.numpy().astype(np.float32))
            node.attributes[attribute.name] = ir.AttrTensor(attribute.name, tensor)
            changed = True
    return changed
