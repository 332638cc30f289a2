"""Remove nodes that change nothing, and merge two of a kind into one."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass
from onnxscript.rewriter import RewriteRule, RewriteRuleSet
from onnxscript.rewriter.rules import common

from ptychonnx.export.graph.editing import constant_array

__all__ = ["SimplificationPass"]


def _neutral(operator: str, value: float) -> RewriteRule:
    """``x op value`` is x. The rules of the library accept a number near `value` too and would lose an epsilon."""

    def pattern(op: Any, x: Any, c: Any) -> Any:
        return getattr(op, operator)(x, c)

    def check(context: Any, x: ir.Value, c: ir.Value) -> bool:
        array = constant_array(c)
        if array is None or array.size != 1 or x.shape is None or len(x.shape) < array.ndim:
            return False
        return bool(array.reshape(()) == value)

    return RewriteRule(pattern, lambda op, x, **_: op.Identity(x), check, name=f"{operator}{value:g}")


def _single_sum() -> RewriteRule:
    """``ReduceSum`` over axes of one element is a view."""

    def pattern(op: Any, x: Any, axes: Any) -> Any:
        return op.ReduceSum(x, axes, keepdims=0)

    def check(context: Any, x: ir.Value, axes: ir.Value) -> bool:
        array, shape = constant_array(axes), x.shape
        if array is None or array.size == 0 or shape is None:
            return False
        return all(shape[int(axis)] == 1 for axis in array)

    return RewriteRule(pattern, lambda op, x, axes: op.Squeeze(x, axes), check, name="single_sum")


_RULES = (
    _single_sum(),
    *(_neutral(operator, value) for operator, value in (("Mul", 1), ("Div", 1), ("Add", 0), ("Sub", 0))),
    common.no_op_cast_rule,
    common.cast_cast_rule,
    common.no_op_transpose_rule,
    common.no_op_expand_rule,
    common.reshape_reshape_rule,
    common.unsqueeze_unsqueeze_rule,
    common.squeeze_reshape_1d_rule,
    common.collapse_slice_rule,
    common.collapse_slice2_rule,
    common.dropout_inference_rule,
    common.dropout_zero_rule,
)


class SimplificationPass(ir.passes.InPlacePass):
    """Rules of onnxscript's rewriter, and some of our own; values stay bit for bit.

    * Removed: ``Cast`` to the same type, ``Transpose`` that moves nothing, ``Expand`` to the same size,
      ``Slice`` of everything, ``Dropout`` in inference, ``x * 1``, ``x / 1``, ``x + 0`` and ``x - 0``.
    * ``ReduceSum`` over axes of one element becomes a view.
    * ``Cast, Cast``, ``Reshape, Reshape`` and ``Unsqueeze, Unsqueeze`` become one node.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = RewriteRuleSet(_RULES).apply_to_model(model)
        IdentityEliminationPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)
