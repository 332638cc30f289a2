"""Joins nodes that only give elements another shape, and removes those that give them the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

__all__ = ["VIEWS", "ViewEliminationPass", "ViewJoiningPass", "known_sizes"]

logger = logging.getLogger(__name__)

VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}


class ViewEliminationPass(ir.passes.InPlacePass):
    """``Reshape``, ``Squeeze``, ``Unsqueeze`` and ``Flatten`` to the shape that is there already go.

    All sizes but one must be known. What gives an output of the graph its name stays.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return _until_none_fits(model, _remove)


class ViewJoiningPass(ir.passes.InPlacePass):
    """A view of a view, see `ViewEliminationPass`, becomes one ``Reshape``, or none if it gives the shape back.

    All sizes but one must be known. A value that another node reads too is left as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return _until_none_fits(model, lambda graph, node: _remove(graph, node) or _join(graph, node))


def _until_none_fits(model: ir.Model, rule: Callable[[ir.Graph, ir.Node], bool]) -> ir.passes.PassResult:
    if not any(node.op_type in VIEWS for node in model.graph):
        return ir.passes.PassResult(model, modified=False)
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    modified = False
    while any(rule(model.graph, node) for node in model.graph):
        modified = True
    return ir.passes.PassResult(model, modified=modified)


def _remove(graph: ir.Graph, node: ir.Node) -> bool:
    source, target = (node.inputs[0], node.outputs[0]) if node.op_type in VIEWS else (None, None)
    if source is None or target is None or target.is_graph_output():
        return False
    before, after = known_sizes(source), known_sizes(target)
    if before is None or before != after:
        return False
    logger.debug("%s: gives the shape that is there", node.name)
    ir.convenience.replace_all_uses_with(target, source)
    graph.remove(node, safe=True)
    return True


def _join(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type not in VIEWS or node.inputs[0] is None:
        return False
    middle, target = node.inputs[0], node.outputs[0]
    previous = middle.producer()
    if (
        previous is None
        or previous.op_type not in VIEWS
        or len(middle.uses()) != 1
        or middle.is_graph_output()
    ):
        return False
    sizes = known_sizes(target)
    # A size of 0 would mean "as before" in a target.
    if sizes is None or 0 in sizes:
        return False
    name = f"{target.name}.target"
    while name in graph.initializers:
        name += "_"
    shape = ir.val(name, const_value=ir.tensor(np.array(sizes, dtype=np.int64), name=name))
    graph.register_initializer(shape)
    joined = ir.node("Reshape", [previous.inputs[0], shape])
    logger.debug("%s: %s and %s joined", target.name, previous.op_type, node.op_type)
    ir.convenience.replace_nodes_and_values(
        graph, node, [node, previous], [joined], [target], [joined.outputs[0]]
    )
    return True


def known_sizes(value: ir.Value) -> Sequence[int] | None:
    """All sizes, with -1 for one that is not known; None if more are not known."""
    if value.shape is None:
        return None
    sizes = [size if isinstance(size, int) else -1 for size in value.shape]
    return sizes if sizes.count(-1) <= 1 else None
