"""Remove transpositions between channel layouts, and merge the `Resize` nodes that become neighbours."""

from __future__ import annotations

import logging

import onnx_ir as ir

from ptychonnx.export.graph.editing import GraphTape, is_read_once
from ptychonnx.export.passes.nearest_resize import add_resize, whole_factors
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["TransposeEliminationPass"]

logger = logging.getLogger(__name__)


class TransposeEliminationPass(NodeRewritePass):
    """Three rules, applied until none fits; values stay bit for bit.

    * ``Resize, Transpose`` becomes ``Transpose, Resize`` with the scales in the new order: fewer pixels are
      moved.
    * ``Transpose, Transpose`` becomes one, or none if they cancel.
    * ``Resize, Resize`` by whole factors becomes one.

    A value that is read elsewhere too, or is an output of the graph, is left as it is.
    """

    infers_shapes = False
    repeats = True

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        if node.op_type not in ("Transpose", "Resize") or node.inputs[0] is None:
            return False
        previous = node.inputs[0].producer()
        tape = GraphTape(graph, node.outputs[0].name)
        match (previous.op_type if previous else None, node.op_type):
            case ("Transpose", "Transpose"):
                assert previous is not None
                first, second = _permutation(previous), _permutation(node)
                tape.add("Transpose", previous.inputs[0], perm=[first[axis] for axis in second])
            case ("Resize", "Transpose" | "Resize"):
                assert previous is not None
                if not is_read_once(previous.outputs[0]) or not _merge_resize(tape, previous, node):
                    return False
            case (_, "Transpose"):
                return _drop_identity(graph, node)
            case _:
                return False
        is_shared = not is_read_once(previous.outputs[0])
        logger.debug("%s: %s, %s merged", node.outputs[0].name, previous.op_type, node.op_type)
        tape.replace([node] if is_shared else [node, previous], node.outputs[0])
        if tape.nodes[-1].op_type == "Transpose":
            _drop_identity(graph, tape.nodes[-1])
        return True


def _merge_resize(tape: GraphTape, previous: ir.Node, node: ir.Node) -> bool:
    factors, source = whole_factors(previous), previous.inputs[0]
    if factors is None or source is None:
        return False
    if node.op_type == "Transpose":
        permutation = _permutation(node)
        moved = tape.add("Transpose", source, perm=permutation)
        add_resize(tape, moved, [factors[axis] for axis in permutation], "joined")
        return True
    further = whole_factors(node)
    if further is None:
        return False
    add_resize(tape, source, [one * other for one, other in zip(factors, further, strict=True)], "joined")
    return True


def _drop_identity(graph: ir.Graph, node: ir.Node) -> bool:
    """Remove a transposition that moves nothing, unless it names an output of the graph."""
    permutation = _permutation(node)
    source, target = node.inputs[0], node.outputs[0]
    if source is None or permutation != sorted(permutation) or target.is_graph_output():
        return False
    ir.convenience.replace_all_uses_with(target, source)
    graph.remove(node, safe=True)
    return True


def _permutation(node: ir.Node) -> list[int]:
    if (order := node.attributes.get_ints("perm")) is not None:
        return list(order)
    source = node.inputs[0]
    assert source is not None
    assert source.shape is not None, "a transposition without perm needs a known rank"
    return list(range(len(source.shape)))[::-1]
