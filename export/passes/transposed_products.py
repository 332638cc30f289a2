"""Rewrite matrix products of transposed images as products from the other side."""

from __future__ import annotations

import logging

import onnx_ir as ir

from ptychonnx.export.graph.editing import GraphTape, constant_array, known_sizes, sole_producer
from ptychonnx.export.passes.node_rewriting import NodeRewritePass
from ptychonnx.export.passes.reshape_merging import VIEWS

__all__ = ["TransposedProductPass"]

logger = logging.getLogger(__name__)


class TransposedProductPass(NodeRewritePass):
    """``Transpose(MatMul(Transpose(x), m))`` becomes ``MatMul(transposed m, x)`` for a constant matrix m.

    Both transpositions exchange the rows and columns of images [batch, rows, columns]. Views may come between them
    and the product: those that stack the images for the product, and those that undo it. A value that another node
    reads is left as it is. Sums are taken in another order, so outputs differ by rounding.
    """

    operators = frozenset({"Transpose", "MatMul"})

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        if not _transposes_images(node):
            return False
        replaced = [node]
        product = _producer(replaced, node.inputs[0])
        if product is None or product.op_type != "MatMul":
            return False
        matrix = constant_array(product.inputs[1])
        first = _producer(replaced, product.inputs[0])
        if matrix is None or matrix.ndim != 2 or first is None or not _transposes_images(first):
            return False
        images, target = first.inputs[0], node.outputs[0]
        before, after = _sizes(images), _sizes(target)
        if before is None or after is None or (before[1], after[1]) != matrix.shape or before[2] != after[2]:
            return False
        tape = GraphTape(graph, target.name)
        tape.add("MatMul", tape.constant(matrix.T, name="transposed"), images)
        logger.debug("%s: multiplied from the left", target.name)
        tape.replace(replaced, target)
        return True


def _producer(nodes: list[ir.Node], value: ir.Value | None) -> ir.Node | None:
    """The node that computes a value before any views; None if another node reads one of the values.

    The node and the views are appended to `nodes`.
    """
    while (node := sole_producer(value)) is not None:
        nodes.append(node)
        if node.op_type not in VIEWS:
            return node
        value = node.inputs[0]
    return None


def _transposes_images(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and list(node.attributes.get_ints("perm", ())) == [0, 2, 1]


def _sizes(value: ir.Value | None) -> list[int] | None:
    sizes = known_sizes(value)
    return sizes if sizes is not None and len(sizes) == 3 and -1 not in sizes[1:] else None
