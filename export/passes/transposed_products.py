"""Turns products of turned images into products from the other side."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ptychonnx.export.passes.convolution_attributes import make_constant
from ptychonnx.export.passes.reshape_merging import VIEWS, known_sizes

__all__ = ["TurnedProductPass"]

logger = logging.getLogger(__name__)


class TurnedProductPass(ir.passes.InPlacePass):
    """``Transpose(MatMul(Transpose(x), m))`` becomes ``MatMul(transposed m, x)`` for a constant matrix m.

    Both transpositions exchange the rows and columns of images [batch, rows, columns]; views that lay the images
    below each other for the product, and back, may stand between. A value that another node reads is left as it is.
    Sums are taken in another order, so outputs differ by rounding.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not {"Transpose", "MatMul"} <= {node.op_type for node in model.graph}:
            return ir.passes.PassResult(model, modified=False)
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        replaced = sum(_turn(model.graph, node) for node in list(model.graph))
        return ir.passes.PassResult(model, modified=replaced > 0)


def _turn(graph: ir.Graph, last: ir.Node) -> bool:
    if not _turns_images(last):
        return False
    nodes = [last]
    product = _behind(nodes, last.inputs[0])
    if product is None or product.op_type != "MatMul":
        return False
    matrix = None if product.inputs[1] is None else ir.convenience.get_const_tensor(product.inputs[1])
    first = _behind(nodes, product.inputs[0])
    if matrix is None or len(matrix.shape) != 2 or first is None or not _turns_images(first):
        return False
    images, found = first.inputs[0], last.outputs[0]
    before, after = _sizes(images), _sizes(found)
    if before is None or after is None or (before[1], after[1]) != matrix.shape or before[2] != after[2]:
        return False
    label = found.name
    weight = make_constant(graph, f"{label}.turned", matrix.numpy().T)
    turned = ir.node("MatMul", [weight, images])
    ir.convenience.replace_nodes_and_values(graph, last, nodes, [turned], [found], [turned.outputs[0]])
    logger.debug("%s: multiplied from the left", label)
    return True


def _behind(nodes: list[ir.Node], value: ir.Value | None) -> ir.Node | None:
    """What computes a value, behind views; it and the views are added to `nodes`. None if another node reads one."""
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None:
            return None
        nodes.append(node)
        if node.op_type not in VIEWS:
            return node
        value = node.inputs[0]
    return None


def _turns_images(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and list(node.attributes["perm"].as_ints()) == [0, 2, 1]


def _sizes(value: ir.Value | None) -> Sequence[int] | None:
    sizes = None if value is None else known_sizes(value)
    return sizes if sizes is not None and len(sizes) == 3 and -1 not in sizes[1:] else None
