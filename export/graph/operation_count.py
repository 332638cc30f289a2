"""How much a graph computes."""

from __future__ import annotations

import math

import onnx

__all__ = ["multiply_adds"]


def multiply_adds(model: onnx.ModelProto) -> int:
    """Multiplications of convolutions and matrix products for one pattern, from inferred shapes.

    Each comes with an addition, so floating-point operations are twice as many. What is elementwise is not
    counted, nor zeros that pad an image. Sizes of inputs that are not known, such as the batch, are taken as one.
    """
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    # Shapes that the exporter noted have names for what follows from the batch.
    del alone.graph.value_info[:]
    for value in alone.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            axis.dim_value = axis.dim_value or 1
    graph = onnx.shape_inference.infer_shapes(alone, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type == "MatMul":
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            transposed = any(each.name == "transA" and each.i for each in node.attribute)
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
        elif node.op_type == "Conv":
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    return total
