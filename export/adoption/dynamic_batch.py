"""A graph for one pattern at a time becomes one for any number, where running it shows that nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import constant_array, infer_shapes
from ptychonnx.export.verification.verify import relative_difference

__all__ = ["EXACT", "batch_difference", "with_dynamic_batch"]

# Largest relative difference between patterns together and one by one: engines sum in another order.
EXACT = 2e-6


def with_dynamic_batch(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """A graph whose batch is 1, with a dynamic batch instead; whether it is right must be shown by running it.

    Shapes noted by the exporter are dropped, and constant targets of Reshape that begin with the batch copy it from
    their input.

    Parameters
    ----------
    source
        Name of the input.
    """
    graph = ir.from_proto(model)
    infer_shapes(graph)
    for node in graph.graph:
        if node.op_type == "Reshape" and _begins_with_one(node.inputs[0]) and not _allows_zero(node):
            target = constant_array(node.inputs[1])
            if target is not None and len(target) and target[0] == 1:
                name = f"{node.outputs[0].name}.batched_shape"
                value = ir.val(name, const_value=ir.tensor(np.array([0, *target[1:]], np.int64), name=name))
                graph.graph.register_initializer(value)
                node.replace_input_with(1, value)
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape(["batch", *list(value.shape)[1:]])
    for node in ir.traversal.RecursiveGraphIterator(graph.graph):
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    assert any(value.name == source for value in graph.graph.inputs)
    return ir.to_proto(graph)


def _begins_with_one(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) > 0 and value.shape[0] == 1


def _allows_zero(node: ir.Node) -> bool:
    return "allowzero" in node.attributes and bool(node.attributes["allowzero"].value)


def batch_difference(
    batched: Callable[[NDArray], NDArray], single: Callable[[NDArray], NDArray], patterns: NDArray
) -> float:
    """Largest relative difference between patterns run together and one by one.

    Parameters
    ----------
    batched, single
        Networks from patterns [B, ...] to outputs [B, ...].
    patterns
        Patterns that differ in size and content, so that an operation across patterns shows.
    """
    return relative_difference(batched(patterns), single(patterns))
