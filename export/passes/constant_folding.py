"""Fold whatever does not depend on an input: constants, and sizes other than the batch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript.optimizer import fold_constants

__all__ = ["ConstantFoldingPass"]

# Numbers of elements: a larger constant is cheaper to compute than to store.
_LARGEST_INPUT = 2**22
_LARGEST_OUTPUT = 2**20


class ConstantFoldingPass(ir.passes.InPlacePass):
    """onnxscript's folding: nodes whose inputs are all constant become constants.

    Shapes are inferred, so that ``Shape`` followed by ``Gather``, ``Cast`` or ``Concat`` is folded wherever the
    result does not contain the batch. The reference evaluator of the ONNX project computes the values, in the types
    of the graph.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = len(list(model.graph))
        result = fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=_LARGEST_INPUT,
            output_size_limit=_LARGEST_OUTPUT,
        )
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        for value in model.graph.initializers.values():
            _store_in_order(value)
        return ir.passes.PassResult(model, modified=result.modified or before != len(list(model.graph)))


def _store_in_order(value: ir.Value) -> None:
    """Copy a constant that is a view with other strides, such as a folded transposition: its bytes are hashed later."""
    tensor = value.const_value
    if tensor is not None and not tensor.numpy().flags.c_contiguous:
        stored = np.ascontiguousarray(tensor.numpy())
        value.const_value = ir.Tensor(stored, dtype=tensor.dtype, name=value.name)
