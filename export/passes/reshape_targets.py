"""Replace target shapes that are computed, only to keep the batch dynamic, by constants."""

from __future__ import annotations

import logging

import onnx_ir as ir

from ptychonnx.export.graph.editing import GraphTape
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["ReshapeTargetPass"]

logger = logging.getLogger(__name__)


class ReshapeTargetPass(NodeRewritePass):
    """The computed target of a ``Reshape`` becomes constant, with -1 for the one unknown size.

    Exporters compute targets by ``Shape``, ``Gather``, ``Cast`` and ``Concat``, which GPU providers leave to the CPU.
    Shape inference determines all sizes but the batch, which follows from the number of elements.
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
    shape = node.outputs[0].shape
    if shape is None:
        logger.debug("%s: the shape of its output is unknown", node.name)
        return False
    target = [size if isinstance(size, int) else -1 for size in shape]
    # In a target, a size of 0 would stand for the size before.
    if target.count(-1) > 1 or 0 in target:
        logger.debug("%s: not determined by the number of elements: %s", node.name, shape)
        return False
    tape = GraphTape(graph, node.outputs[0].name)
    node.replace_input_with(1, tape.integers(*target, name="target"))
    return True
