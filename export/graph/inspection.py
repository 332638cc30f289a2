"""Inspection of a graph without running it: operators, multiplications, and whether it runs everywhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import onnx

from ptychonnx.export.graph.tensor_names import INPUT_NAME, OUTPUT_NAME
from ptychonnx.runtime.errors import VerificationError, first_line
from ptychonnx.runtime.inference.graph_shapes import inferred_graph

__all__ = ["all_graphs", "check_graph", "element_types", "graphs_inside", "multiply_adds", "operators"]

# No GPU provider implements them, and the inverse is silently wrong in some versions of onnxruntime.
_FORBIDDEN = {"DFT", "STFT"}
_COMPLEX = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}


def graphs_inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Subgraphs of a node: the branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes, at any depth."""
    yield graph
    for node in graph.node:
        for inner in graphs_inside(node):
            yield from all_graphs(inner)


def operators(model: onnx.ModelProto) -> Counter[str]:
    """Number of nodes by operator, including those in branches and loops."""
    return Counter(node.op_type for graph in all_graphs(model.graph) for node in graph.node)


def element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """ONNX element type of every value whose type is noted, and of every initialiser, by name."""
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def check_graph(
    data: bytes,
    *,
    inputs: Sequence[str] = (INPUT_NAME,),
    outputs: Sequence[str] = (OUTPUT_NAME,),
    batch: int | None = None,
    without_batch: Collection[str] = (),
    defaults: Sequence[str] = (),
) -> onnx.ModelProto:
    """Check that serialised bytes are a graph that runs in every engine.

    Inputs and outputs are named in order, those whose first axis is not the batch in `without_batch`; `batch` is None
    if it must be dynamic. `defaults` are further inputs, which have a default (an initializer) and no batch.

    Raises VerificationError if the bytes are not a valid ONNX model; if it has operators that are not standard, Fourier
    operators, complex numbers, external data or functions; or if inputs and outputs are not the expected ones.
    """
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # onnx raises several different types
        raise VerificationError(f"graph: the ONNX checker refuses it: {first_line(error)}") from error
    custom = {
        f"{node.domain}.{node.op_type}"
        for graph in all_graphs(model.graph)
        for node in graph.node
        if node.domain not in ("", "ai.onnx")
    }
    custom |= {function.name for function in model.functions}
    if custom:
        raise VerificationError(f"graph: {', '.join(sorted(custom))} are not standard ONNX operators")
    if forbidden := _FORBIDDEN & set(operators(model)):
        raise VerificationError(
            f"graph: holds {', '.join(sorted(forbidden))}, which GPU providers do not implement"
        )
    if _COMPLEX.intersection(element_types(model.graph).values()):
        raise VerificationError("graph: holds complex numbers")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise VerificationError("graph: has weights in another file")
    constants = {tensor.name for tensor in model.graph.initializer}
    for name in defaults:
        if name not in constants:
            raise VerificationError(f"graph: input {name!r} has no default")
    for kind, values, names in (
        ("input", model.graph.input, (*inputs, *defaults)),
        ("output", model.graph.output, outputs),
    ):
        if [value.name for value in values] != [*names]:
            raise VerificationError(
                f"graph: {kind}s are {[value.name for value in values]}, expected {[*names]}"
            )
        for value in values:
            if value.name not in without_batch and value.name not in defaults:
                _check_batch(kind, value, batch)
    return model


def _check_batch(kind: str, value: onnx.ValueInfoProto, batch: int | None) -> None:
    axes = value.type.tensor_type.shape.dim
    if not axes:
        raise VerificationError(
            f"graph: {kind} {value.name!r} has no axes, expected the batch as the first one"
        )
    if batch is None and not axes[0].dim_param:
        raise VerificationError(f"graph: the batch of {kind} {value.name!r} is fixed")
    if batch is not None and axes[0].dim_value != batch:
        size = axes[0].dim_value or "dynamic"
        raise VerificationError(f"graph: the batch of {kind} {value.name!r} is {size}, expected {batch}")


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
