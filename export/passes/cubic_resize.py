"""Rewrite cubic interpolation to a fixed size as two products with constant matrices."""

from __future__ import annotations

import logging
from dataclasses import dataclass

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
    before, after = _Size.of(image), _Size.of(target)
    if before is None or after is None or before.others != after.others:
        logger.debug("%s: the size is unknown, or other axes than the last two change", node.name)
        return False
    scales = constant_array(node.inputs[2])
    if len(node.inputs) < 4 and scales is None:
        return False
    by_row, by_column = (None, None) if scales is None else scales[2:].tolist()
    opset = graph.opset_imports[""]
    rows = _matrix(node, opset, before.rows, after.rows, by_row)
    columns = _matrix(node, opset, before.columns, after.columns, by_column)
    tape = GraphTape(graph, target.name)
    resized_rows = tape.add("MatMul", tape.constant(rows, name="rows"), image)
    tape.add("MatMul", resized_rows, tape.constant(columns.T, name="columns"))
    logger.debug("%s: now two products", target.name)
    tape.replace([node], target)
    return True


@dataclass(frozen=True)
class _Size:
    """Size of images [B, C, rows, columns]; `others` are the batch (a name if it is dynamic) and the channels."""

    others: tuple[int | str, int]
    rows: int
    columns: int

    @staticmethod
    def of(value: ir.Value) -> _Size | None:
        """None if a size is unknown, or the image is too large."""
        if value.shape is None or len(value.shape) != 4:
            return None
        batch, channels, rows, columns = value.shape
        name = batch if isinstance(batch, int) else batch.value
        if name is None or not (
            isinstance(channels, int) and isinstance(rows, int) and isinstance(columns, int)
        ):
            return None
        return None if max(rows, columns) > _MAX_SIDE else _Size((name, channels), rows, columns)


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
