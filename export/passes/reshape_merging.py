"""Merge nodes that only change the shape of a value, and remove those that change nothing."""

from __future__ import annotations

import logging

import onnx_ir as ir

from ptychonnx.export.graph.editing import GraphTape, known_sizes, sole_producer
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["VIEWS", "ReshapeEliminationPass", "ReshapeMergingPass", "almost_known_sizes"]

logger = logging.getLogger(__name__)

VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}


class ReshapeEliminationPass(NodeRewritePass):
    """Remove ``Reshape``, ``Squeeze``, ``Unsqueeze`` and ``Flatten`` nodes that do not change the shape.

    All sizes but one must be known. A node that computes an output of the graph stays, because it names the output.
    """

    repeats = True

    def applies(self, graph: ir.Graph) -> bool:
        return any(node.op_type in VIEWS for node in graph)

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        return node.op_type in VIEWS and _remove(graph, node)


class ReshapeMergingPass(ReshapeEliminationPass):
    """Two such nodes in a row become one ``Reshape``, or none if they restore the shape.

    All sizes but one must be known. A value that another node reads too is left as it is.
    """

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        return node.op_type in VIEWS and (_remove(graph, node) or _merge(graph, node))


def _remove(graph: ir.Graph, node: ir.Node) -> bool:
    source, target = node.inputs[0], node.outputs[0]
    before = almost_known_sizes(source)
    if source is None or before is None or before != almost_known_sizes(target) or target.is_graph_output():
        return False
    logger.debug("%s: does not change the shape", node.name)
    ir.convenience.replace_all_uses_with(target, source)
    graph.remove(node, safe=True)
    return True


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    target = node.outputs[0]
    previous, sizes = sole_producer(node.inputs[0], VIEWS), almost_known_sizes(target)
    # In a target, a size of 0 would stand for the size before.
    if previous is None or sizes is None or 0 in sizes:
        return False
    tape = GraphTape(graph, target.name)
    tape.add("Reshape", previous.inputs[0], tape.integers(*sizes, name="target"))
    logger.debug("%s: %s and %s merged", target.name, previous.op_type, node.op_type)
    tape.replace([node, previous], target)
    return True


def almost_known_sizes(value: ir.Value | None) -> list[int] | None:
    """All sizes, with -1 for an unknown one; None if several are unknown."""
    sizes = known_sizes(value)
    return None if sizes is None or sizes.count(-1) > 1 else sizes
