"""Arithmetic of complex numbers at the same place: sums, products, quotients, powers."""

from __future__ import annotations

import cmath
import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import AxisMap
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue, Term
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import (
    RULES,
    Constant,
    Context,
    NotLowered,
    from_parts,
    is_complex,
    rule,
)

__all__ = ["scaled_along_one_axis"]


@rule("add", "sub", "rsub")
def _add(context: Context, operator: Any, x: Any, y: Any, alpha: Any = 1) -> Any:
    if operator.overloadpacket.__name__ == "rsub":
        x, y = y, x
    sign = alpha if operator.overloadpacket.__name__ == "add" else -alpha
    (a, b), (c, d) = context.parts(x), context.parts(y)
    if isinstance(sign, complex):
        raise NotLowered("its factor alpha is complex")
    scaled = c if sign == 1 else sign * c
    real = a + scaled
    turned = d if d is None or sign == 1 else sign * d
    imaginary = b if turned is None else turned if b is None else b + turned
    if not isinstance(imaginary, Tensor):
        imaginary = torch.full_like(real, imaginary)
    return LinearValue.of_parts(real, imaginary)


@rule("mul")
def _mul(context: Context, operator: Any, x: Any, y: Any) -> Any:
    for value, factor in ((x, y), (y, x)):
        folded = scaled_along_one_axis(context, value, factor)
        if folded is not None:
            return folded
    if isinstance(x, complex):
        x, y = y, x
    if is_complex(y) and not is_complex(x) and not isinstance(y, complex):
        x, y = y, x
    if is_complex(x) and not is_complex(y):
        return _times_real(context, x, context.real(y))
    if (turned := _times_constant(context, x, y)) is not None:
        return turned
    (a, b), (c, d) = context.parts(x), context.parts(y)
    if b is None:
        return operator(a, c) if d is None else LinearValue.of_parts(a * c, a * d)
    return LinearValue.of_parts(a * c - b * d, a * d + b * c)


def _times_constant(context: Context, x: Any, y: Any) -> LinearValue | None:
    """A product of parts that lie in one tensor and a constant: the parts keep their axis of one."""
    x, y = (y, x) if isinstance(x, Constant) else (x, y)
    if not isinstance(y, Constant) or not is_complex(x) or isinstance(x, Constant | complex):
        return None
    pair = context.pair(x)
    if pair.gap is None or y.array.ndim > len(pair.shape):
        return None
    wide = y.array.reshape((1,) * (len(pair.shape) - y.array.ndim) + y.array.shape)
    if any(size != other and size != 1 for size, other in zip(wide.shape, pair.shape, strict=True)):
        return None
    wide = np.expand_dims(wide, pair.gap)
    c, d = (context.constants.tensor(part, pair.dtype) for part in (wide.real, wide.imag))
    stacked = pair.stacked(pair.gap)
    a, b = (stacked.narrow(pair.gap, part, 1) for part in (0, 1))
    return LinearValue.of(Pair(a * c - b * d, a * d + b * c, gap=pair.gap))


def _times_real(context: Context, x: Any, factor: Any) -> LinearValue:
    pair = context.pair(x)
    if not isinstance(factor, Tensor):
        if pair.gap is None:
            return LinearValue.of(pair.each(lambda part: part * factor))
        return LinearValue.of(Pair(stacked=pair.stacked(pair.gap) * factor, gap=pair.gap))
    if pair.gap is not None and factor.ndim <= len(pair.shape):
        behind = len(pair.shape) - pair.gap
        wide = factor.unsqueeze(factor.ndim - behind) if factor.ndim >= behind else factor
        product = pair.stacked(pair.gap) * wide
        if product.ndim == len(pair.shape) + 1 and product.shape[pair.gap] == 2:
            return LinearValue.of(Pair(stacked=product, gap=pair.gap))
    return LinearValue.of_parts(pair.real * factor, pair.imaginary * factor)


def scaled_along_one_axis(context: Context, x: Any, factor: Any) -> LinearValue | None:
    """A constant factor that varies along one transformed axis at most is merged into the transform."""
    if not isinstance(x, LinearValue) or not x.is_pending or x.is_zero:
        return None
    if isinstance(factor, int | float | complex):
        scales, axes = np.asarray(factor, np.complex128), list(range(x.ndim))
    else:
        known = context.constant(factor)
        if known is None or known.ndim > x.ndim:
            return None
        sizes = (1,) * (x.ndim - known.ndim) + tuple(known.shape)
        wide = [axis for axis, size in enumerate(sizes) if size != 1]
        if len(wide) > 1 or any(sizes[axis] != x.shape[axis] for axis in wide):
            return None
        axes = wide or list(range(x.ndim))
        scales = known.astype(np.complex128).reshape(-1)
    if x.is_real and scales.imag.any():
        return None
    for axis in axes:
        if all(_has_kernel(term, axis) for term in x.terms):
            return x.mapped(axis, lambda one: one.scaled(scales), x.shape[axis])
    return None


def _has_kernel(term: Term, axis: int) -> bool:
    one: AxisMap | None = term.maps[axis]
    return one is not None and one.kernel is not None


@rule("div", "true_divide")
def _div(context: Context, operator: Any, x: Any, y: Any, **keywords: Any) -> Any:
    if keywords.get("rounding_mode"):
        raise NotLowered("it rounds")
    if isinstance(y, int | float | complex):
        return _mul(context, operator, x, 1 / y)
    known = context.constant(y)
    if known is not None:
        inverse = (1 / known.astype(np.complex128)).astype(np.complex64)
        folded = scaled_along_one_axis(context, x, Constant(inverse))
        if folded is not None:
            return folded
    (a, b), (c, d) = context.parts(x), context.parts(y)
    if d is None:
        return LinearValue.of_parts(a / c, b / c)
    square = c * c + d * d
    if b is None:
        return LinearValue.of_parts(a * c / square, -a * d / square)
    return LinearValue.of_parts((a * c + b * d) / square, (b * c - a * d) / square)


@rule("reciprocal")
def _reciprocal(context: Context, operator: Any, x: Any) -> LinearValue:
    real, imaginary = context.pair(x).parts
    square = real * real + imaginary * imaginary
    # As in torch, the real part for zero is infinite and the imaginary one NaN.
    inverse = torch.where(square == 0, torch.full_like(square, math.inf), real / square)
    return LinearValue.of_parts(inverse, -imaginary / square)


@rule("square")
def _square(context: Context, operator: Any, x: Any) -> LinearValue:
    real, imaginary = context.pair(x).parts
    return LinearValue.of_parts(real * real - imaginary * imaginary, 2 * real * imaginary)


@rule("pow")
def _pow(context: Context, operator: Any, x: Any, exponent: Any) -> LinearValue:
    if isinstance(exponent, complex) and not exponent.imag:
        exponent = exponent.real
    if isinstance(exponent, int) or (isinstance(exponent, float) and exponent.is_integer()):
        number = int(exponent)
        if 1 <= abs(number) <= 4:
            power: Any = x
            for _ in range(abs(number) - 1):
                power = context.apply("mul", power, x)
            return power if number > 0 else context.apply("reciprocal", power)
    if isinstance(x, int | float | complex):
        if x == 0:
            raise NotLowered("it raises zero to a power")
        logarithm: Any = cmath.log(x)
        logarithm = logarithm if logarithm.imag else logarithm.real
    else:
        logarithm = context.apply("log", x)
    return context.apply("exp", context.apply("mul", logarithm, exponent))


@rule("linalg_vector_norm", "norm")
def _norm(context: Context, operator: Any, x: Any, *args: Any, **keywords: Any) -> Tensor:
    return operator(context.apply("abs", x), *args, **keywords)


@rule("addcmul")
def _addcmul(context: Context, operator: Any, x: Any, left: Any, right: Any, value: Any = 1) -> Any:
    return context.apply("add", x, context.apply("mul", context.apply("mul", left, right), value))


@rule("prod")
def _prod(
    context: Context, operator: Any, x: Any, dim: int | None = None, keepdim: bool = False, **_: Any
) -> Any:
    pair = context.pair(x)
    if dim is None:
        pair, dim = pair.each(torch.flatten), 0
    total = _running_products(context, pair, dim)[-1]
    if keepdim:
        total = context.each(total, partial(torch.unsqueeze, dim=dim))
    return total


@rule("cumprod")
def _cumprod(context: Context, operator: Any, x: Any, dim: int, **_: Any) -> LinearValue:
    pairs = [context.pair(one) for one in _running_products(context, context.pair(x), dim)]
    return from_parts(lambda part: torch.stack([one.parts[part] for one in pairs], dim))


def _running_products(context: Context, pair: Pair, dim: int) -> list[Any]:
    """Products of the first entries along an axis: of one, of two, and so on."""
    size = pair.shape[dim]
    if not isinstance(size, int):
        raise NotLowered("it multiplies along an axis of dynamic size")
    entries = [
        LinearValue.of(pair.each(partial(torch.select, dim=dim, index=index))) for index in range(size)
    ]
    return list(itertools.accumulate(entries, partial(context.apply, "mul")))


@rule("var", "std")
def _variance(context: Context, operator: Any, x: Any, *args: Any, **keywords: Any) -> Tensor:
    overload = getattr(torch.ops.aten.var, operator._overloadname)
    variance = sum(overload(part, *args, **keywords) for part in context.pair(x).parts)
    return variance if operator.overloadpacket.__name__ == "var" else torch.sqrt(variance)


@rule("var_mean", "std_mean")
def _variance_and_mean(
    context: Context, operator: Any, x: Any, dim: Any = None, *args: Any, **keywords: Any
) -> tuple[Tensor, Any]:
    kind = operator.overloadpacket.__name__.removesuffix("_mean")
    overload = getattr(getattr(torch.ops.aten, kind), operator._overloadname)
    axes = list(range(context.value(x).ndim)) if dim is None else dim
    mean = RULES["mean"](context, torch.ops.aten.mean.dim, x, axes, keywords.get("keepdim", False))
    return _variance(context, overload, x, dim, *args, **keywords), mean
