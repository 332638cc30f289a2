"""Functions of a complex variable, from the absolute value to circular functions; comparisons, and choices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import Context, rule


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
    (real, imaginary), size = context.pair(x).parts, _abs(context, operator, x)
    size = torch.where(size == 0, torch.ones_like(size), size)
    return LinearValue.of_parts(real / size, imaginary / size)


@rule("exp")
def _exp(context: Context, operator: Any, x: Any) -> LinearValue:
    pair = context.pair(x)
    size = torch.exp(pair.real)
    return LinearValue.of_parts(size * torch.cos(pair.imaginary), size * torch.sin(pair.imaginary))


@rule("log")
def _log(context: Context, operator: Any, x: Any) -> LinearValue:
    a, b = context.pair(x).parts
    return LinearValue.of_parts(0.5 * torch.log(a * a + b * b), torch.atan2(b, a))


@rule("log2", "log10")
def _log_of_base(context: Context, operator: Any, x: Any) -> LinearValue:
    base = 2 if operator.overloadpacket.__name__ == "log2" else 10
    return context.apply("mul", _log(context, operator, x), 1 / math.log(base))


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
    (real, imaginary), size = context.pair(x).parts, _abs(context, operator, x)
    # The sum that does not cancel, and the other part from the product of both.
    large = torch.sqrt((size + torch.abs(real)) / 2)
    small = torch.abs(imaginary) / torch.where(large == 0, torch.ones_like(large), 2 * large)
    right = real >= 0
    sign = torch.where(imaginary < 0, -torch.ones_like(real), torch.ones_like(real))
    root = LinearValue.of_parts(torch.where(right, large, small), sign * torch.where(right, small, large))
    return root if operator.overloadpacket.__name__ == "sqrt" else context.apply("reciprocal", root)


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
    pair = context.pair(_tanh(context, operator, context.apply("mul", x, 0.5)))
    return LinearValue.of_parts(0.5 + 0.5 * pair.real, 0.5 * pair.imaginary)


@rule("silu")
def _silu(context: Context, operator: Any, x: Any) -> LinearValue:
    return context.apply("mul", x, _sigmoid(context, operator, x))


@rule("where")
def _where(context: Context, operator: Any, condition: Any, x: Any, y: Any) -> LinearValue:
    left, right = context.both_parts(x), context.both_parts(y)
    return LinearValue.of_parts(*(torch.where(condition, a, b) for a, b in zip(left, right, strict=True)))


@rule("masked_fill")
def _masked_fill(context: Context, operator: Any, x: Any, mask: Any, fill: Any) -> LinearValue:
    pair, (real, imaginary) = context.pair(x), context.both_parts(fill)
    return LinearValue.of_parts(
        pair.real.masked_fill(mask, real), pair.imaginary.masked_fill(mask, imaginary)
    )


@rule("eq", "ne")
def _equal(context: Context, operator: Any, x: Any, y: Any) -> Tensor:
    (a, b), (c, d) = context.both_parts(x), context.both_parts(y)
    equal = (a == c) & (b == d)
    return equal if operator.overloadpacket.__name__ == "eq" else ~equal


@rule("logical_not")
def _is_zero(context: Context, operator: Any, x: Any) -> Tensor:
    return torch.logical_and(*(part == 0 for part in context.pair(x).parts))


@rule("isnan", "isinf")
def _either(context: Context, operator: Any, x: Any) -> Tensor:
    pair = context.pair(x)
    return operator(pair.real) | operator(pair.imaginary)


@rule("isfinite")
def _both(context: Context, operator: Any, x: Any) -> Tensor:
    pair = context.pair(x)
    return torch.isfinite(pair.real) & torch.isfinite(pair.imaginary)
