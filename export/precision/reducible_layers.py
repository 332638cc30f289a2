"""Layers that can be reduced, one node each, and graphs in which some of them are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from ptychonnx.export.graph.inspection import element_types, graphs_inside
from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["Reduction", "describe_layer", "inferred_types", "with_named_nodes"]


@dataclass(frozen=True)
class Reduction:
    """One way to reduce a graph, layer by layer.

    * `layers`: names of the nodes that can be reduced, in the order of the graph.
    * `build`: the graph with these layers reduced (at least one) and all others in float32.
    * `emulate`: the same network for the CPU provider of onnxruntime, with the roundings of the hardware that the
      reduced graph is made for. It is `build` if the provider rounds in the same way.
    """

    layers: tuple[str, ...]
    build: Callable[[Collection[str]], onnx.ModelProto]
    emulate: Callable[[Collection[str]], onnx.ModelProto]


def with_named_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without metadata whose nodes all have unique names.

    Raises UnsupportedError if a node has subgraphs, because values that are used inside them are not tracked.
    """
    named = copy.deepcopy(model)
    del named.metadata_props[:]
    taken: set[str] = set()
    for number, node in enumerate(named.graph.node):
        if any(True for _ in graphs_inside(node)):
            raise UnsupportedError(
                f"graph: {node.op_type} {node.name!r} branches or loops, expected a graph without such nodes"
            )
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)
    return named


def inferred_types(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type of every value and initialiser.

    Raises UnsupportedError if the type of a value cannot be inferred.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = element_types(graph)
    for node in graph.node:
        for name in filter(None, node.output):
            if types.get(name, TensorProto.UNDEFINED) == TensorProto.UNDEFINED:
                raise UnsupportedError(
                    f"graph: the type of {name!r} is unknown, expected one that can be inferred"
                )
    return types


def describe_layer(model: onnx.ModelProto, name: str) -> str:
    """Name of a node, and the name of its weights, or their shape if the framework did not name them."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    (node,) = (node for node in model.graph.node if node.name == name)
    weights = next((constants[value] for value in node.input if value in constants), None)
    if weights is None:
        return name
    # The passes name anonymous weights after the node that reads them.
    if ".input_" in weights.name:
        return f"{name} (weights {' x '.join(map(str, weights.dims))})"
    return f"{name} ({weights.name})"
