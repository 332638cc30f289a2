"""Fuse the formula of the Gaussian error linear unit into the operator `Gelu` of opset 20."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewriteRule, RewriteRuleSet

from ptychonnx.export.graph.editing import constant_array

__all__ = ["GeluFusionPass"]

_FIRST_OPSET = 20


class GeluFusionPass(ir.passes.InPlacePass):
    """The formulas that exporters write become ``Gelu``; values differ by rounding only (below 1e-6).

    * torch: ``x * (0.5 * (erf(x / sqrt(2)) + 1))``.
    * Keras: ``(0.5 * x) * (1 - erf(-x * sqrt(0.5)))``, which is how the converter writes its ``erfc``.
    * Both with ``approximate="tanh"``: ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))``.

    Nothing is done below opset 20, which does not have the operator, and to graphs without `Erf` and `Tanh`: the
    rules are many, since each product and sum may have its factors in either order, and each is tried on every node.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if model.opset_imports.get("", 0) < _FIRST_OPSET:
            return ir.passes.PassResult(model, modified=False)
        operators = {node.op_type for node in model.graph}
        count = sum(
            rules.apply_to_model(model) for operator, rules in _RULES.items() if operator in operators
        )
        return ir.passes.PassResult(model, modified=count > 0)


# Patterns are written with onnxscript's own builder, which has no types.
def _torch(op: Any, x: Any, half: Any, one: Any, root: Any) -> Any:
    return op.Mul(x, op.Mul(half, op.Add(op.Erf(op.Div(x, root)), one)))


def _keras(op: Any, x: Any, half: Any, one: Any, inverse_root: Any) -> Any:
    return op.Mul(op.Mul(half, x), op.Sub(one, op.Erf(op.Mul(op.Neg(x), inverse_root))))


def _cubic(op: Any, x: Any, one: Any, factor: Any, cube: Any, three: Any) -> Any:
    return op.Add(op.Tanh(op.Mul(factor, op.Add(x, op.Mul(cube, op.Pow(x, three))))), one)


def _torch_tanh(op: Any, x: Any, half: Any, one: Any, factor: Any, cube: Any, three: Any) -> Any:
    return op.Mul(x, op.Mul(half, _cubic(op, x, one, factor, cube, three)))


def _keras_tanh(op: Any, x: Any, half: Any, one: Any, factor: Any, cube: Any, three: Any) -> Any:
    return op.Mul(op.Mul(half, x), _cubic(op, x, one, factor, cube, three))


_VALUES = {
    "half": 0.5,
    "one": 1.0,
    "root": math.sqrt(2),
    "inverse_root": math.sqrt(0.5),
    "factor": math.sqrt(2 / math.pi),
    "cube": 0.044715,
    "three": 3.0,
}


def _rule(pattern: Callable[..., Any], approximate: str) -> RewriteRule:
    def check(context: Any, **bound: ir.Value) -> bool:
        return all(_is(value, _VALUES[name]) for name, value in bound.items() if name in _VALUES)

    def replace(op: Any, x: ir.Value, **_: ir.Value) -> Any:
        return op.Gelu(x, approximate=approximate)

    return RewriteRule(pattern, replace, check, name=f"Gelu{pattern.__name__}")


def _is(value: ir.Value, expected: float) -> bool:
    array = constant_array(value)
    return (
        array is not None
        and array.size == 1
        and math.isclose(float(array.reshape(())), expected, rel_tol=1e-6)
    )


# By the operator that none of their patterns is without.
_RULES = {
    operator: RewriteRuleSet([_rule(pattern, approximate) for pattern in patterns], commute=True)
    for operator, approximate, patterns in (
        ("Erf", "none", (_torch, _keras)),
        ("Tanh", "tanh", (_torch_tanh, _keras_tanh)),
    )
}
