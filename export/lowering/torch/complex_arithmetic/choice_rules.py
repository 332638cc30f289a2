"""Comparisons of complex numbers, and choices between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import Context, rule


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
