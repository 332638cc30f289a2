"""Number of multiplications of a graph."""

from __future__ import annotations

import math

import onnx

from ptychonnx.runtime.inference.graph_shapes import inferred_graph

__all__ = ["multiply_adds"]


def multiply_adds(model: onnx.ModelProto) -> int:
    """Multiplications of convolutions and matrix products for one pattern, from inferred shapes.

    Each comes with an addition, so there are twice as many floating-point operations. Elementwise operators and the
    zeros that pad an image are not counted. Unknown sizes of inputs, such as the batch, count as one.
    """
    graph = inferred_graph(model)
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type == "MatMul":
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
        elif node.op_type == "Conv":
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    return total
