"""Rewrite cubic interpolation to a fixed size as two products with constant matrices."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from ptychonnx.export.graph.editing import GraphTape, constant_array
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["CubicResizePass"]

logger = logging.getLogger(__name__)

# Beyond it, the products cost more than the interpolation.
_MAX_SIDE = 512


class CubicResizePass(NodeRewritePass):
    """``Resize`` of mode ``cubic``, of images [B, C, rows, columns] of known size, becomes ``R x C``.

    Cubic interpolation is linear and acts on rows and columns separately: R and C are the outputs of the operator for
    images with a single row or column of ones. Engines compute the operator value by value: a UNO that takes 1.7 ms
    per pattern in onnxruntime took 25. Not every GPU provider has it. Sums are taken in another order, so outputs
    differ by rounding.
    """

    def applies(self, graph: ir.Graph) -> bool:
        return any(_is_cubic(node) for node in graph)

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        return _is_cubic(node) and _replace(graph, node)


def _is_cubic(node: ir.Node) -> bool:
    return node.op_type == "Resize" and node.attributes.get_string("mode") == "cubic"


def _replace(graph: ir.Graph, node: ir.Node) -> bool:
    if "axes" in node.attributes or len(node.inputs) < 3 or node.inputs[0] is None:
        return False
    image, target = node.inputs[0], node.outputs[0]
    before, after = _sizes(image), _sizes(target)
    if before is None or after is None or before[:2] != after[:2]:
        logger.debug("%s: the size is unknown, or other axes than the last two change", node.name)
        return False
    scales = constant_array(node.inputs[2])
    if len(node.inputs) < 4 and scales is None:
        return False
    by_row, by_column = (None, None) if scales is None else scales[2:].tolist()
    opset = graph.opset_imports[""]
    rows = _matrix(node, opset, before[2], after[2], by_row)
    columns = _matrix(node, opset, before[3], after[3], by_column)
    tape = GraphTape(graph, target.name)
    resized_rows = tape.add("MatMul", tape.constant(rows, name="rows"), image)
    tape.add("MatMul", resized_rows, tape.constant(columns.T, name="columns"))
    logger.debug("%s: now two products", target.name)
    tape.replace([node], target)
    return True


def _sizes(value: ir.Value) -> tuple[Any, ...] | None:
    """[B, C, rows, columns] of images, with the name of a dynamic batch; None if unknown, or for too large images."""
    if value.shape is None or len(value.shape) != 4:
        return None
    batch, *sizes = value.shape
    name = batch if isinstance(batch, int) else batch.value
    known = [size for size in sizes if isinstance(size, int)]
    return (name, *known) if name is not None and len(known) == 3 and max(known[1:]) <= _MAX_SIDE else None


def _matrix(node: ir.Node, opset: int, old: int, new: int, factor: float | None) -> NDArray[np.float32]:
    """[new, old]: outputs of the operator for images with a single row of ones."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    sized = factor is None
    resize = onnx.helper.make_node(
        "Resize", ["x", "", "", "to"] if sized else ["x", "", "to"], ["y"], **attributes
    )
    to = np.array([1, 1, new, old]) if sized else np.array([1, 1, factor, 1], dtype=np.float32)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [resize],
        "one axis",
        [value("x", onnx.TensorProto.FLOAT, [1, 1, old, old])],
        [value("y", onnx.TensorProto.FLOAT, [1, 1, new, old])],
        [onnx.numpy_helper.from_array(to, "to")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    (found,) = ReferenceEvaluator(model).run(None, {"x": np.eye(old, dtype=np.float32)[None, None]})
    return found[0, 0].astype(np.float32)
