"""Editing of graphs with `onnx_ir`: constants, new nodes, and nodes that replace others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, ShapeInferencePass

__all__ = [
    "GraphTape",
    "add_constant",
    "constant_array",
    "float_constant",
    "infer_shapes",
    "input_at",
    "is_read_once",
    "known_sizes",
    "remove_metadata",
    "replace_nodes",
    "sole_producer",
]


class GraphTape(ir.tape.Tape):
    """Records new nodes for a graph; constants, whose names begin with `label`, are added to the graph at once."""

    def __init__(self, graph: ir.Graph, label: str | None) -> None:
        super().__init__()
        self._graph, self._label = graph, label
        self._constants = 0

    def constant(self, values: ArrayLike, dtype: Any = None, name: str | None = None) -> ir.Value:
        """A constant called ``<label>.<name>``; the name is made unique, or is a number if None."""
        self._constants += 1
        name = name or f"constant_{self._constants}"
        return add_constant(self._graph, f"{self._label}.{name}", np.asarray(values, dtype=dtype))

    def integers(self, *values: int, name: str | None = None) -> ir.Value:
        """A constant int64 vector, such as a shape or a list of axes."""
        return self.constant(values, np.int64, name)

    def add(self, operator: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Record a node with one output, and return the output."""
        return self.op(operator, inputs, attributes)

    def slice(self, value: ir.Value, axis: int, start: int, stop: int, step: int = 1) -> ir.Value:
        """Record a slice along one axis; ``start=-1, stop=-2**31, step=-1`` reverses the axis."""
        return self.add("Slice", value, *(self.integers(number) for number in (start, stop, axis, step)))

    def replace(self, old: Sequence[ir.Node], target: ir.Value) -> None:
        """Replace nodes of the graph by the recorded ones, the last of which computes `target`."""
        replace_nodes(self._graph, old, self.nodes, target)


def add_constant(graph: ir.Graph, name: str, values: NDArray) -> ir.Value:
    """Add an initialiser to a graph; underscores at the end make its name unique."""
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(values).reshape(values.shape), name=name))
    graph.register_initializer(value)
    return value


def constant_array(value: ir.Value | None) -> NDArray | None:
    """The values of a constant; None if `value` is not constant, or is an input of the graph with a default."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def float_constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """`constant_array` of a float32 constant; None for any other."""
    array = constant_array(value)
    return None if array is None or array.dtype != np.float32 else array


def is_read_once(value: ir.Value | None) -> bool:
    """Whether exactly one node reads a value, and it is not an output of the graph."""
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def sole_producer(value: ir.Value | None, operators: Collection[str] = ()) -> ir.Node | None:
    """The node that computes a value that is read once, if it is one of these operators; any if there are none."""
    producer = value.producer() if value is not None and is_read_once(value) else None
    return producer if producer is None or not operators or producer.op_type in operators else None


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """An input of a node; None if it is left out."""
    return node.inputs[index] if len(node.inputs) > index else None


def known_sizes(value: ir.Value | None) -> list[int] | None:
    """Sizes of a value, with -1 for unknown ones; None if not even their number is known."""
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else -1 for size in value.shape]


def remove_metadata(model: ir.Model, producer_version: str | None) -> None:
    """Remove metadata, documentation strings and names of a model that tell where it comes from."""
    ClearMetadataAndDocStringPass()(model)
    graph = model.graph
    model.metadata_props.clear()
    graph.metadata_props.clear()
    model.doc_string = graph.doc_string = None
    graph.name = "network"
    model.domain, model.model_version = None, None
    model.producer_name, model.producer_version = "ptychonnx", producer_version


def infer_shapes(model: ir.Model) -> None:
    """Infer types and shapes of all values, in place."""
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def replace_nodes(graph: ir.Graph, old: Sequence[ir.Node], new: Sequence[ir.Node], target: ir.Value) -> None:
    """Replace `old` nodes by `new` ones, which are inserted where the first old one is.

    Name, type and readers of `target`, the output of an old node, go to the output of the last new node.
    """
    (result,) = new[-1].outputs
    ir.convenience.replace_nodes_and_values(graph, old[0], old, new, [target], [result])
