"""Computes what can be computed without an input: constants, and sizes that do not depend on the batch."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript.optimizer import fold_constants

__all__ = ["ConstantFoldingPass"]

# Elements: a constant that grows beyond this is cheaper to compute than to store.
_LARGEST_INPUT = 2**22
_LARGEST_OUTPUT = 2**20


class ConstantFoldingPass(ir.passes.InPlacePass):
    """onnxscript's folding: nodes whose inputs are all constant become constants.

    With sizes inferred on the way, ``Shape`` followed by ``Gather``, ``Cast`` or ``Concat`` folds wherever the
    batch is not among them. The reference evaluator of the ONNX project computes the values, in float32 where
    the graph says float32.
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
        return ir.passes.PassResult(model, modified=result.modified or before != len(list(model.graph)))
