"""Cubic interpolation to a fixed size becomes two products with constant matrices."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import ShapeInferencePass

from ptychonnx.export.passes.convolution_attributes import make_constant

__all__ = ["ResamplingPass"]

logger = logging.getLogger(__name__)

# Beyond it, the products cost more than the interpolation.
_MAX_SIDE = 512


class ResamplingPass(ir.passes.InPlacePass):
    """``Resize`` of mode ``cubic``, of images [B, C, rows, columns] of known size, becomes ``R x C``.

    Interpolation is linear and treats rows and columns alike, each by itself: R and C are what the operator makes of
    images of single rows and columns. Engines compute it value by value: a UNO that takes 1.7 ms a pattern in
    onnxruntime took 25. Not every GPU provider has it. Sums are taken in another order, so outputs differ
    by rounding.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not any(_is_cubic(node) for node in model.graph):
            return ir.passes.PassResult(model, modified=False)
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        opset = model.opset_imports[""]
        replaced = sum(_replace(model.graph, node, opset) for node in list(model.graph))
        return ir.passes.PassResult(model, modified=replaced > 0)


def _is_cubic(node: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    return node.op_type == "Resize" and mode is not None and mode.as_string() == "cubic"


def _replace(graph: ir.Graph, node: ir.Node, opset: int) -> bool:
    if not _is_cubic(node) or "axes" in node.attributes or len(node.inputs) < 3 or node.inputs[0] is None:
        return False
    image, target = node.inputs[0], node.outputs[0]
    before, after = _Size.of(image), _Size.of(target)
    if before is None or after is None or before.others != after.others:
        logger.debug("%s: of unknown size, or other axes than the last two change", node.name)
        return False
    scales = None if node.inputs[2] is None else ir.convenience.get_const_tensor(node.inputs[2])
    if len(node.inputs) < 4 and scales is None:
        return False
    by_row, by_column = (None, None) if scales is None else scales.numpy()[2:].tolist()
    rows = _matrix(node, opset, before.rows, after.rows, by_row)
    columns = _matrix(node, opset, before.columns, after.columns, by_column)
    label = target.name
    middle = ir.node("MatMul", [make_constant(graph, f"{label}.rows", rows), image])
    last = ir.node("MatMul", [middle.outputs[0], make_constant(graph, f"{label}.columns", columns.T)])
    ir.convenience.replace_nodes_and_values(graph, node, [node], [middle, last], [target], [last.outputs[0]])
    logger.debug("%s: now two products", label)
    return True


@dataclass(frozen=True)
class _Size:
    """Of images [B, C, rows, columns]; `others` are the channels and the batch, a name if it varies."""

    others: tuple[int | str, int]
    rows: int
    columns: int

    @staticmethod
    def of(value: ir.Value) -> _Size | None:
        """None if a size is not known, or the image is too large."""
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
    """[new, old]: what the operator makes of each of the rows of an image, all others being 0."""
    attributes = {name: _value(attribute) for name, attribute in node.attributes.items()}
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


def _value(attribute: ir.Attr) -> float | int | str:
    match attribute.type:
        case ir.AttributeType.STRING:
            return attribute.as_string()
        case ir.AttributeType.INT:
            return attribute.as_int()
        case _:
            return attribute.as_float()
