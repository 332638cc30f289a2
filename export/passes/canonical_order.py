"""Sort nodes and initialisers in an order that depends only on what the graph computes."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["CanonicalOrderPass"]


class CanonicalOrderPass(ir.passes.InPlacePass):
    """Nodes in the order in which the outputs need them, initialisers in the order in which nodes read them.

    tf2onnx sorts by names with counters that continue during a process, so that two exports of one network
    differ. The traversal starts at the outputs and follows inputs from first to last; each node comes after those
    it reads from. Nodes that no output needs stay at the end. A graph with subgraphs is only sorted
    topologically.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        before = (list(graph), list(graph.initializers))
        if any(attribute.type in _SUBGRAPHS for node in graph for attribute in node.attributes.values()):
            graph.sort()
        else:
            _sort(graph)
        return ir.passes.PassResult(model, modified=before != (list(graph), list(graph.initializers)))


_SUBGRAPHS = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


def _sort(graph: ir.Graph) -> None:
    graph.sort()
    ordered = list(dict.fromkeys([*_needed(graph), *graph]))
    # Nodes are moved to the end one after the other.
    for node in ordered:
        graph.remove(node)
        graph.append(node)
    read = dict.fromkeys(value for node in ordered for value in node.inputs if value is not None)
    known = {value: name for name, value in graph.initializers.items()}
    values = [*(value for value in read if value in known), *(value for value in known if value not in read)]
    graph.initializers.clear()
    for value in values:
        graph.initializers.add(value)


def _needed(graph: ir.Graph) -> list[ir.Node]:
    """Nodes that the outputs need, each after its inputs; with a stack, since networks are deep."""
    done: dict[ir.Node, None] = {}
    stack = [node for value in reversed(graph.outputs) if (node := value.producer())]
    while stack:
        node = stack[-1]
        producers = [value.producer() for value in node.inputs if value is not None]
        waiting = [producer for producer in producers if producer is not None and producer not in done]
        if node in done or not waiting:
            done.setdefault(node)
            stack.pop()
        else:
            stack.append(waiting[0])
    return list(done)
