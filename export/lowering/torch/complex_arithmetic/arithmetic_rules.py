"""Operators that compute numbers from numbers at the same place: arithmetic, comparisons, conversions."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import AxisMap
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue, Term
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.products import compute
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import (
    RULES,
    Constant,
    Context,
    NotLowered,
    is_complex,
    rule,
)

__all__: list[str] = []

Parts = tuple[Any, Any]


def _parts(context: Context, x: Any) -> Parts:
    """Real and imaginary part, tensors or numbers; the imaginary part of a real argument is None."""
    if isinstance(x, complex):
        return x.real, x.imag
    if is_complex(x):
        return context.pair(x).parts
    return context.real(x), None


def _complex(real: Any, imaginary: Any) -> LinearValue:
    if real.shape != imaginary.shape:
        real, imaginary = torch.broadcast_tensors(real, imaginary)
    return LinearValue.of(Pair(real, imaginary))


@rule("add", "sub", "rsub")
def _add(context: Context, operator: Any, x: Any, y: Any, alpha: Any = 1) -> Any:
    if operator.overloadpacket.__name__ == "rsub":
        x, y = y, x
    sign = alpha if operator.overloadpacket.__name__ == "add" else -alpha
    (a, b), (c, d) = _parts(context, x), _parts(context, y)
    if isinstance(sign, complex):
        raise NotLowered("its factor alpha is complex")
    scaled = c if sign == 1 else sign * c
    real = a + scaled
    if d is None:
        return _complex(real, b)
    if b is None:
        return _complex(real, d if sign == 1 else sign * d)
    return _complex(real, b + (d if sign == 1 else sign * d))


@rule("mul")
def _mul(context: Context, operator: Any, x: Any, y: Any) -> Any:
    for value, factor in ((x, y), (y, x)):
        folded = _scaled_along_one_axis(context, value, factor)
        if folded is not None:
            return folded
    if isinstance(x, complex):
        x, y = y, x
    if is_complex(y) and not is_complex(x) and not isinstance(y, complex):
        x, y = y, x
    if is_complex(x) and not is_complex(y):
        return _times_real(context, x, context.real(y))
    (a, b), (c, d) = _parts(context, x), _parts(context, y)
    if b is None:
        return operator(a, c) if d is None else _complex(a * c, a * d)
    return _complex(a * c - b * d, a * d + b * c)


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
    return _complex(pair.real * factor, pair.imaginary * factor)


def _scaled_along_one_axis(context: Context, x: Any, factor: Any) -> LinearValue | None:
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
        inverse = 1 / known.astype(np.complex128)
        folded = _scaled_along_one_axis(context, x, Constant(inverse.astype(np.complex64)))
        if folded is not None:
            return folded
    (a, b), (c, d) = _parts(context, x), _parts(context, y)
    if d is None:
        return _complex(a / c, b / c)
    if b is None:
        square = c * c + d * d
        return _complex(a * c / square, -a * d / square)
    square = c * c + d * d
    return _complex((a * c + b * d) / square, (b * c - a * d) / square)


@rule("reciprocal")
def _reciprocal(context: Context, operator: Any, x: Any) -> LinearValue:
    real, imaginary = context.pair(x).parts
    square = real * real + imaginary * imaginary
    return _complex(real / square, -imaginary / square)


@rule("square")
def _square(context: Context, operator: Any, x: Any) -> LinearValue:
    real, imaginary = context.pair(x).parts
    return _complex(real * real - imaginary * imaginary, 2 * real * imaginary)


@rule("pow")
def _pow(context: Context, operator: Any, x: Any, exponent: Any) -> LinearValue:
    if isinstance(exponent, int) or (isinstance(exponent, float) and exponent.is_integer()):
        number = int(exponent)
        if 1 <= abs(number) <= 4:
            power: Any = x
            for _ in range(abs(number) - 1):
                power = _mul(context, torch.ops.aten.mul.Tensor, power, x)
            return power if number > 0 else _reciprocal(context, operator, power)
    if not is_complex(x) and not isinstance(x, Tensor):
        raise NotLowered("it raises a number to a complex power")
    logarithm = RULES["log"](context, operator, x)
    return RULES["exp"](context, operator, _mul(context, torch.ops.aten.mul.Tensor, logarithm, exponent))


def _is_computed_whole(context: Context, x: Any) -> bool:
    """Whether the other part of a value is wanted as well, so that both are computed at once."""
    return not (isinstance(x, LinearValue) and x.is_pending and context.is_read_once(x))


@rule("real")
def _real(context: Context, operator: Any, x: Any) -> Any:
    if not is_complex(x):
        return x
    if _is_computed_whole(context, x):
        return context.pair(x).real
    return x.real_part()


@rule("imag")
def _imag(context: Context, operator: Any, x: Any) -> Any:
    if not _is_computed_whole(context, x):
        turned = _scaled_along_one_axis(context, x, -1j)
        if turned is not None:
            return turned.real_part()
    return context.pair(x).imaginary


@rule("_conj", "conj", "conj_physical", "_conj_physical")
def _conj(context: Context, operator: Any, x: Any) -> Any:
    if not is_complex(x):
        return x
    pair = context.pair(x)
    return LinearValue.of(Pair(pair.real, -pair.imaginary))


@rule("view_as_real", "view_as_real_copy")
def _view_as_real(context: Context, operator: Any, x: Any) -> Tensor:
    value = context.value(x)
    return context.pair(value, value.ndim).stacked(value.ndim)


@rule("view_as_complex", "view_as_complex_copy")
def _view_as_complex(context: Context, operator: Any, x: Any) -> LinearValue:
    value = context.settled(x)
    terms = []
    for term in value.terms:
        if term.maps[-1] is not None or not isinstance(term.source, Tensor):
            value = LinearValue.of(compute(value, context.constants))
            break
    for term in value.terms:
        assert isinstance(term.source, Tensor)
        terms.append(Term(Pair(stacked=term.source, gap=value.ndim - 1), term.maps[:-1]))
    return LinearValue(value.shape[:-1], value.dtype, terms)


@rule("complex")
def _from_parts(context: Context, operator: Any, real: Any, imaginary: Any) -> LinearValue:
    return _complex(context.real(real), context.real(imaginary))


@rule("polar")
def _polar(context: Context, operator: Any, size: Any, angle: Any) -> LinearValue:
    size, angle = context.real(size), context.real(angle)
    return _complex(size * torch.cos(angle), size * torch.sin(angle))


@rule("where")
def _where(context: Context, operator: Any, condition: Any, x: Any, y: Any) -> LinearValue:
    left, right = _operand(context, x), _operand(context, y)
    return _complex(*(torch.where(condition, a, b) for a, b in zip(left, right, strict=True)))


def _operand(context: Context, x: Any) -> Parts:
    real, imaginary = _parts(context, x)
    if imaginary is None:
        imaginary = torch.zeros_like(real) if isinstance(real, Tensor) else 0.0
    return real, imaginary


@rule("masked_fill")
def _masked_fill(context: Context, operator: Any, x: Any, mask: Any, fill: Any) -> LinearValue:
    pair, (real, imaginary) = context.pair(x), _operand(context, fill)
    return _complex(pair.real.masked_fill(mask, real), pair.imaginary.masked_fill(mask, imaginary))


@rule("fill")
def _fill(context: Context, operator: Any, x: Any, fill: Any) -> LinearValue:
    shape = tuple(context.value(x).shape)
    real, imaginary = _operand(context, fill)
    dtype = context.value(x).dtype
    parts = [torch.as_tensor(part, dtype=dtype).expand(shape) for part in (real, imaginary)]
    return LinearValue.of(Pair(*parts))


@rule("eq", "ne")
def _equal(context: Context, operator: Any, x: Any, y: Any) -> Tensor:
    (a, b), (c, d) = _operand(context, x), _operand(context, y)
    equal = (a == c) & (b == d)
    return equal if operator.overloadpacket.__name__ == "eq" else ~equal


@rule("isnan", "isinf")
def _either(context: Context, operator: Any, x: Any) -> Tensor:
    pair = context.pair(x)
    return operator(pair.real) | operator(pair.imaginary)


@rule("isfinite")
def _both(context: Context, operator: Any, x: Any) -> Tensor:
    pair = context.pair(x)
    return torch.isfinite(pair.real) & torch.isfinite(pair.imaginary)


_TYPES: dict[Any, torch.dtype] = {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


@rule("_to_copy", "to", "type_as")
def _to(context: Context, operator: Any, x: Any, **keywords: Any) -> Any:
    wanted = keywords.get("dtype")
    if not is_complex(x):
        real = x if isinstance(x, LinearValue) and x.is_pending else context.real(x)
        value = context.value(real)
        if wanted in _TYPES and value.dtype != _TYPES[wanted]:
            value = LinearValue.of(context.real(real).to(_TYPES[wanted]))
        if value.takes_real_part:
            value = context.settled(value)
        return LinearValue(value.shape, value.dtype, value.terms)
    value = context.value(x)
    if wanted is None or _TYPES.get(wanted) == value.dtype:
        return x
    if wanted in _TYPES:
        return LinearValue.of(context.pair(x).each(lambda part: part.to(_TYPES[wanted])))
    return _real(context, operator, x).to(wanted) if not value.is_pending else context.pair(x).real.to(wanted)


_LIKE = ("full_like", "zeros_like", "ones_like", "empty_like")
_NEW = ("new_zeros", "new_full", "new_ones", "new_empty")


@rule(*_LIKE, *_NEW, "full", "zeros", "ones", "empty", "scalar_tensor")
def _full(context: Context, operator: Any, *args: Any, **keywords: Any) -> LinearValue:
    name = operator.overloadpacket.__name__
    fill: Any = float("ones" in name)
    if name == "scalar_tensor":
        shape, fill = (), args[0]
    elif name in _LIKE:
        shape = context.value(args[0]).shape
        fill = args[1] if name == "full_like" else fill
    elif name in _NEW:
        shape = args[1]
        fill = args[2] if name == "new_full" else fill
    else:
        shape = args[0]
        fill = args[1] if name == "full" else fill
    wanted = keywords.get("dtype")
    dtype = _TYPES.get(wanted)
    if dtype is None and wanted is None and args and isinstance(args[0], LinearValue | Constant):
        dtype = context.value(args[0]).dtype
    dtype = dtype or torch.float32
    if fill == 0:
        return LinearValue(shape, dtype, [])
    fill = complex(fill)
    return LinearValue.of(
        Pair(torch.full(shape, fill.real, dtype=dtype), torch.full(shape, fill.imag, dtype=dtype))
    )


@rule("sym_size")
def _size(context: Context, operator: Any, x: Any, dim: int) -> Any:
    return context.value(x).shape[dim]


@rule("sym_numel", "numel")
def _count(context: Context, operator: Any, x: Any) -> Any:
    return math.prod(context.value(x).shape)


@rule("_assert_tensor_metadata")
def _nothing(context: Context, operator: Any, *args: Any, **keywords: Any) -> None:
    return None


@rule("linalg_vector_norm", "norm")
def _norm(context: Context, operator: Any, x: Any, *args: Any, **keywords: Any) -> Tensor:
    return operator(RULES["abs"](context, operator, x), *args, **keywords)


@rule("addcmul")
def _addcmul(context: Context, operator: Any, x: Any, left: Any, right: Any, value: Any = 1) -> Any:
    product = _mul(context, torch.ops.aten.mul.Tensor, _mul(context, operator, left, right), value)
    return _add(context, torch.ops.aten.add.Tensor, x, product)


@rule("prod")
def _prod(
    context: Context, operator: Any, x: Any, dim: int | None = None, keepdim: bool = False, **_: Any
) -> Any:
    pair = context.pair(x)
    if dim is None:
        pair, dim = pair.each(torch.flatten), 0
    size = pair.shape[dim]
    if not isinstance(size, int):
        raise NotLowered("it multiplies along an axis of dynamic size")
    total: Any = LinearValue.of(pair.each(lambda part: part.select(dim, 0)))
    for index in range(1, size):
        factor = LinearValue.of(pair.each(partial(torch.select, dim=dim, index=index)))
        total = _mul(context, torch.ops.aten.mul.Tensor, total, factor)
    if keepdim:
        total = LinearValue.of(context.pair(total).each(lambda part: part.unsqueeze(dim)))
    return total
