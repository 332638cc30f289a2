"""Passes that try one rewriting rule on every node of a graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Set
from typing import ClassVar

import onnx_ir as ir

from ptychonnx.export.graph.editing import infer_shapes

__all__ = ["NodeRewritePass"]


class NodeRewritePass(ir.passes.InPlacePass):
    """Apply `rewrite` to every node of the main graph.

    * `operators`: nothing is done to a graph that lacks one of these.
    * `infers_shapes`: whether `rewrite` needs inferred shapes.
    * `repeats`: whether to start again after each rewriting, until no node is rewritten.
    """

    operators: ClassVar[Set[str]] = frozenset()
    infers_shapes: ClassVar[bool] = True
    repeats: ClassVar[bool] = False

    def applies(self, graph: ir.Graph) -> bool:
        """Whether the graph may hold a node to rewrite."""
        return self.operators <= {node.op_type for node in graph}

    @abstractmethod
    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrite `node` if the rule fits, and return whether it did."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        if not self.applies(graph):
            return ir.passes.PassResult(model, modified=False)
        if self.infers_shapes:
            infer_shapes(model)
        modified = False
        if self.repeats:
            while any(self.rewrite(graph, node) for node in graph):
                modified = True
        else:
            # A node may be gone, because an earlier one was rewritten together with it.
            modified = sum(self.rewrite(graph, node) for node in list(graph) if node.graph is graph) > 0
        return ir.passes.PassResult(model, modified=modified)
