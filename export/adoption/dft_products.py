"""DFT nodes of constant length become products with constant matrices, which every engine runs."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import GraphTape, constant_array, infer_shapes
from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["replace_dft"]

_log = logging.getLogger(__name__)

# Until this opset, the axis of a DFT was an attribute, and 1 if not set.
_AXIS_AS_INPUT = 20


def replace_dft(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The graph without DFT nodes, and how many it had.

    A DFT of n points of a tensor [..., n, ..., 1 or 2], real or complex as pairs, becomes one product of a constant
    matrix with the points and their parts as one vector. Forward, inverse and one-sided transforms are the same to
    that matrix, and so are zero padding and cropping to ``dft_length``.

    Raises UnsupportedError if the length of a DFT is not constant.
    """
    if not any(node.op_type == "DFT" for node in model.graph.node):
        return model, 0
    converted = ir.from_proto(model)
    infer_shapes(converted)
    graph = converted.graph
    transforms = [node for node in graph if node.op_type == "DFT"]
    for number, node in enumerate(transforms):
        tape = GraphTape(graph, f"dft_{number}")
        _record_product(tape, node, graph.opset_imports[""])
        tape.replace([node], node.outputs[0])
    _log.debug("%d DFT nodes became products", len(transforms))
    return ir.to_proto(converted), len(transforms)


def _record_product(tape: GraphTape, node: ir.Node, opset: int) -> None:
    value, target = node.inputs[0], node.outputs[0]
    assert value is not None
    shape = value.shape
    where = f"DFT {node.name or target.name!r}"
    if shape is None:
        raise UnsupportedError(f"{where}: the shape of its input is unknown, expected a constant length")
    rank, axis = len(shape), _axis(node, opset, where)
    axis += rank if axis < 0 else 0
    points, parts = shape[axis], shape[rank - 1]
    length: Any = points
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = constant_array(node.inputs[1])
        length = None if constant is None else int(constant.reshape(-1)[0])
    inverse, onesided = (bool(node.attributes.get_int(name, 0)) for name in ("inverse", "onesided"))
    if inverse and onesided and (len(node.inputs) < 2 or node.inputs[1] is None) and isinstance(points, int):
        length = 2 * (points - 1)
    if not isinstance(points, int) or not isinstance(parts, int) or not isinstance(length, int):
        raise UnsupportedError(f"{where}: has {points} points along axis {axis}, expected a constant length")
    matrix = dft_matrix(points, parts, length, inverse=inverse, onesided=onesided)
    order = [*(number for number in range(rank - 1) if number != axis), axis, rank - 1]
    back = [order.index(number) for number in range(rank)]
    others = [0] * (rank - 2)  # sizes copied from the input of Reshape
    moved = tape.add("Transpose", value, perm=order) if order != sorted(order) else value
    vectors = tape.add("Reshape", moved, tape.integers(*others, points * parts))
    product = tape.add("MatMul", vectors, tape.constant(matrix, np.float32))
    parts_after = 1 if inverse and onesided else 2
    restored = tape.add(
        "Reshape", product, tape.integers(*others, matrix.shape[1] // parts_after, parts_after)
    )
    tape.add("Transpose", restored, perm=back)


def _axis(node: ir.Node, opset: int, where: str) -> int:
    if opset < _AXIS_AS_INPUT:
        return node.attributes.get_int("axis", 1)
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return -2
    constant = constant_array(node.inputs[2])
    if constant is None:
        raise UnsupportedError(f"{where}: its axis is computed, expected a constant")
    return int(constant.reshape(-1)[0])


def dft_matrix(points: int, parts: int, length: int, *, inverse: bool, onesided: bool) -> NDArray[np.float64]:
    """The transform as a matrix [points * parts, points after it * parts after it], for rows (point, part).

    An input of 1 part is real, of 2 complex. Fewer points than the length are padded with zeros, more are cropped.
    """
    transform = (np.fft.irfft if onesided else np.fft.ifft) if inverse else np.fft.fft
    units = np.repeat(np.eye(points), parts, axis=0).astype(np.complex128)
    units[1::parts] *= 1j if parts == 2 else 1
    rows = transform(units, length, axis=1)
    if inverse and onesided:
        return np.real(rows)
    if onesided:
        rows = rows[:, : length // 2 + 1]
    return np.stack([rows.real, rows.imag], axis=-1).reshape(points * parts, -1)
