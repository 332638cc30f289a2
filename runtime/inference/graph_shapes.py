"""Shapes of all values of a graph, for one pattern."""

from __future__ import annotations

import onnx

__all__ = ["inferred_graph"]


def inferred_graph(model: onnx.ModelProto) -> onnx.GraphProto:
    """A copy of the graph with inferred shapes: sizes that are unknown are those of the default, or 1, as the batch."""
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    # In shapes that the exporter noted, sizes that depend on the batch are names.
    del alone.graph.value_info[:]
    defaults = {tensor.name: list(tensor.dims) for tensor in alone.graph.initializer}
    for value in alone.graph.input:
        axes = value.type.tensor_type.shape.dim
        for axis, size in zip(axes, defaults.get(value.name, [1] * len(axes)), strict=True):
            axis.dim_value = axis.dim_value or size
    return onnx.shape_inference.infer_shapes(alone, data_prop=True).graph
