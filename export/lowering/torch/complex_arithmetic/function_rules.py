"""Functions of a complex variable: absolute value, angle, exponentials, logarithms, roots, circular functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import RULES, Context, rule


def _product(context: Context, x: Any, y: Any) -> Any:
    return RULES["mul"](context, torch.ops.aten.mul.Tensor, x, y)


@rule("abs")
def _abs(context: Context, operator: Any, x: Any) -> Tensor:
    real, imaginary = context.pair(x).parts
    return torch.sqrt(real * real + imaginary * imaginary)


@rule("angle")
def _angle(context: Context, operator: Any, x: Any) -> Tensor:
    real, imaginary = context.pair(x).parts
    return torch.atan2(imaginary, real)


@rule("sgn", "sign")
def _sign(context: Context, operator: Any, x: Any) -> LinearValue:
    real, imaginary = context.pair(x).parts
    size = torch.sqrt(real * real + imaginary * imaginary)
    size = torch.where(size == 0, torch.ones_like(size), size)
    return LinearValue.of_parts(real / size, imaginary / size)


@rule("exp")
def _exp(context: Context, operator: Any, x: Any) -> LinearValue:
    pair = context.pair(x)
    size = torch.exp(pair.real)
    return LinearValue.of_parts(size * torch.cos(pair.imaginary), size * torch.sin(pair.imaginary))


@rule("log")
def _log(context: Context, operator: Any, x: Any) -> LinearValue:
    real, imaginary = context.pair(x).parts
    return LinearValue.of_parts(
        0.5 * torch.log(real * real + imaginary * imaginary), torch.atan2(imaginary, real)
    )


@rule("log2", "log10")
def _log_of_base(context: Context, operator: Any, x: Any) -> LinearValue:
    base = 2 if operator.overloadpacket.__name__ == "log2" else 10
    return _product(context, _log(context, operator, x), 1 / math.log(base))


@rule("log1p")
def _log1p(context: Context, operator: Any, x: Any) -> LinearValue:
    # The logarithm of the squared size of 1 + x, exact for small x too.
    a, b = context.pair(x).parts
    return LinearValue.of_parts(0.5 * torch.log1p(a * (2 + a) + b * b), torch.atan2(b, 1 + a))


@rule("expm1")
def _expm1(context: Context, operator: Any, x: Any) -> LinearValue:
    # cos(b) - 1 = -2 sin(b / 2) ** 2, exact for small x too.
    a, b = context.pair(x).parts
    half = torch.sin(b / 2)
    return LinearValue.of_parts(torch.expm1(a) - 2 * torch.exp(a) * half * half, torch.exp(a) * torch.sin(b))


@rule("sqrt", "rsqrt")
def _sqrt(context: Context, operator: Any, x: Any) -> LinearValue:
    real, imaginary = context.pair(x).parts
    size = torch.sqrt(real * real + imaginary * imaginary)
    # The sum that does not cancel, and the other part from the product of both.
    large = torch.sqrt((size + torch.abs(real)) / 2)
    small = torch.abs(imaginary) / torch.where(large == 0, torch.ones_like(large), 2 * large)
    right = real >= 0
    sign = torch.where(imaginary < 0, -torch.ones_like(real), torch.ones_like(real))
    root = LinearValue.of_parts(torch.where(right, large, small), sign * torch.where(right, small, large))
    return (
        root if operator.overloadpacket.__name__ == "sqrt" else RULES["reciprocal"](context, operator, root)
    )


def _circular(real: Callable, imaginary: Callable) -> Callable:
    def apply(context: Context, operator: Any, x: Any) -> LinearValue:
        a, b = context.pair(x).parts
        return LinearValue.of_parts(real(a, b), imaginary(a, b))

    return apply


rule("sin")(_circular(lambda a, b: torch.sin(a) * torch.cosh(b), lambda a, b: torch.cos(a) * torch.sinh(b)))
rule("cos")(_circular(lambda a, b: torch.cos(a) * torch.cosh(b), lambda a, b: -torch.sin(a) * torch.sinh(b)))
rule("sinh")(_circular(lambda a, b: torch.sinh(a) * torch.cos(b), lambda a, b: torch.cosh(a) * torch.sin(b)))
rule("cosh")(_circular(lambda a, b: torch.cosh(a) * torch.cos(b), lambda a, b: torch.sinh(a) * torch.sin(b)))


@rule("tanh")
def _tanh(context: Context, operator: Any, x: Any) -> LinearValue:
    # With t = tanh(a) and u = tan(b): (t + i u) / (1 + i t u), which does not overflow.
    pair = context.pair(x)
    t, u = torch.tanh(pair.real), torch.tan(pair.imaginary)
    below = 1 + t * t * u * u
    return LinearValue.of_parts(t * (1 + u * u) / below, u * (1 - t * t) / below)


@rule("tan")
def _tan(context: Context, operator: Any, x: Any) -> LinearValue:
    # -i tanh(i x)
    a, b = context.pair(x).parts
    turned = context.pair(_tanh(context, operator, LinearValue.of_parts(-b, a)))
    return LinearValue.of_parts(turned.imaginary, -turned.real)


@rule("sigmoid")
def _sigmoid(context: Context, operator: Any, x: Any) -> LinearValue:
    half = _product(context, x, 0.5)
    pair = context.pair(_tanh(context, operator, half))
    return LinearValue.of_parts(0.5 + 0.5 * pair.real, 0.5 * pair.imaginary)


@rule("silu")
def _silu(context: Context, operator: Any, x: Any) -> LinearValue:
    return _product(context, x, _sigmoid(context, operator, x))
