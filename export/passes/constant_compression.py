"""Store large constants in fewer bytes, from which engines rebuild them when they load the file."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import GraphTape, float_constant

__all__ = ["ConstantCompressionPass", "compress_constants"]

logger = logging.getLogger(__name__)

# Number of elements below which new nodes take about as much space as they save.
_SMALLEST = 4096
_MOST_VALUES = 256
_SIGNS = np.array([-1, 1], np.float32)


class ConstantCompressionPass(ir.passes.InPlacePass):
    """Constants that repeat themselves are stored once; values stay the same, but for the sign of a zero.

    * A complex matrix in its real form, of blocks ((a, b), (-b, a)), keeps the rows (a, b).
    * A constant of at most 256 distinct values, such as the matrix of a Fourier transform, becomes ``Gather`` of them
      with one byte per element.

    The last of all passes, since folding would undo it. Inputs with defaults stay as they are.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        first = graph[0]
        modified = False
        for value in list(graph.initializers.values()):
            array = float_constant(value)
            if array is None or array.size < _SMALLEST or array.ndim < 2 or value.is_graph_output():
                continue
            tape = GraphTape(graph, value.name)
            rebuilt = _rebuilt(tape, array)
            if rebuilt is not None:
                ir.convenience.replace_all_uses_with(value, rebuilt)
                graph.initializers.pop(str(value.name))
                rebuilt.name = value.name
                graph.insert_before(first, tape.nodes)
                logger.debug("%s: rebuilt by %d nodes", value.name, len(tape.nodes))
                modified = True
        return ir.passes.PassResult(model, modified=modified)


def compress_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a cleaned graph whose constants take less space, see `ConstantCompressionPass`."""
    graph = ir.from_proto(model)
    ConstantCompressionPass()(graph)
    return ir.to_proto(graph)


def _rebuilt(tape: GraphTape, array: NDArray[np.float32]) -> ir.Value | None:
    """The value of a constant from a smaller one; None if there is none."""
    half = _complex_rows(array)
    if half is None:
        return _of_few_values(tape, array)
    rows = _of_few_values(tape, half) or tape.constant(half, name="rows")
    exchanged = tape.add("Gather", rows, tape.integers(1, 0), axis=-1)
    others = tape.add("Mul", exchanged, tape.constant(_SIGNS, name="signs"))
    both = tape.add("Concat", rows, others, axis=half.ndim - 3)
    return tape.add("Reshape", both, tape.integers(*array.shape, name="shape"))


def _of_few_values(tape: GraphTape, array: NDArray[np.float32]) -> ir.Value | None:
    distinct, index = np.unique(array.view(np.uint32), return_inverse=True)
    if len(distinct) > _MOST_VALUES:
        return None
    entries = tape.constant(index.reshape(array.shape), np.uint8, name="entries")
    values = tape.constant(distinct.view(np.float32), name="values")
    return tape.add("Gather", values, tape.add("Cast", entries, to=ir.DataType.INT32))


def _complex_rows(array: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Rows (a, b) [..., I, 1, O, 2] of an array [..., 2 I, 2 O] of blocks ((a, b), (-b, a)); None if it has others."""
    *axes, rows, columns = array.shape
    if rows % 2 or columns % 2:
        return None
    blocks = array.reshape(*axes, rows // 2, 2, columns // 2, 2)
    first, second = blocks[..., :1, :, :], blocks[..., 1:, :, :]
    if not np.array_equal(first[..., ::-1] * _SIGNS, second):
        return None
    return np.ascontiguousarray(first)
