"""Replace target shapes that are computed, only to keep the batch dynamic, by constants."""

from __future__ import annotations

import logging

import onnx_ir as ir

from ptychonnx.export.graph.editing import GraphTape, constant_array, known_sizes
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["ReshapeTargetPass"]

logger = logging.getLogger(__name__)


class ReshapeTargetPass(NodeRewritePass):
    """The computed target of a ``Reshape`` becomes constant, with -1 for the one unknown size.

    Exporters compute targets by ``Shape``, ``Gather``, ``Cast`` and ``Concat``, which GPU providers leave to the CPU.
    Shape inference determines all sizes but the batch, which follows from the number of elements. Where it does not
    follow the arithmetic, as in tf2onnx's ``einsum``, the sizes are read from that.
    """

    def applies(self, graph: ir.Graph) -> bool:
        return any(_has_computed_target(node) for node in graph)

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        return _has_computed_target(node) and _replace(graph, node)


def _has_computed_target(node: ir.Node) -> bool:
    if node.op_type != "Reshape":
        return False
    target = node.inputs[1]
    return target is not None and target.producer() is not None


def _replace(graph: ir.Graph, node: ir.Node) -> bool:
    target = known_sizes(node.outputs[0])
    # In a target, a size of 0 stands for the size before.
    if target is None or target.count(-1) > 1 or 0 in target:
        target = _computed(node)
    if target is None or target.count(-1) > 1:
        logger.debug("%s: not determined by the number of elements: %s", node.name, node.outputs[0].shape)
        return False
    tape = GraphTape(graph, node.outputs[0].name)
    node.replace_input_with(1, tape.integers(*target, name="target"))
    return True


def _computed(node: ir.Node) -> list[int] | None:
    """The target that its arithmetic computes, with 0 for an unknown size that stays in its place."""
    sizes = _sizes(node.inputs[1], node.inputs[0])
    if sizes is None or 0 in sizes or "allowzero" in node.attributes:
        return None
    return [0 if size == -2 - place else max(size, -1) for place, size in enumerate(sizes)]


def _sizes(value: ir.Value | None, data: ir.Value | None) -> list[int] | None:
    """Sizes that are computed from shapes; None if they are computed otherwise.

    Unknown ones are -1, or -2 less the axis if they are those of `data`.
    """
    constant = constant_array(value)
    if constant is not None:
        return [int(size) for size in constant.reshape(-1)]
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Shape" and not node.attributes:
        known, is_data = known_sizes(node.inputs[0]), node.inputs[0] is data
        if known is None:
            return None
        return [-2 - axis if size < 0 and is_data else size for axis, size in enumerate(known)]
    parts = [_sizes(one, data) for one in node.inputs]
    if node.op_type == "Concat":
        return None if None in parts else [size for part in parts if part is not None for size in part]
    if node.op_type == "Gather" and parts[0] is not None and parts[1] is not None:
        return [parts[0][index] for index in parts[1]]
    return parts[0] if node.op_type in ("Cast", "Unsqueeze") else None
