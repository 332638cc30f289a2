"""Operators that take entries along an axis, surround them by others, or put them into a tensor; joins of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import positions
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import (
    Constant,
    Context,
    NotLowered,
    by_parts,
    from_parts,
    is_complex,
    rule,
)

# torch writes the end of an axis as its largest integer.
_END = 1 << 62


def _is_whole(start: Any, end: Any, step: int) -> bool:
    """Whether a slice takes an axis as it is."""
    return start in (None, 0) and (end is None or (isinstance(end, int) and end >= _END)) and step == 1


def _with_native(context: Context, operator: Any, result: LinearValue, x: Any, *args: Any) -> LinearValue:
    """For a real value that is known already, the operator itself gives the result too, if a real reader wants it."""
    if result.is_real and not (isinstance(x, LinearValue) and x.is_pending):
        result.computed = operator(context.real(x), *map(context.real, args))
    return result


@rule("slice")
def _slice(
    context: Context,
    operator: Any,
    x: Any,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    value = context.value(x)
    axis = value.axis(dim)
    if _is_whole(start, end, step):
        return x
    if not (value.fixed(axis) and isinstance(start, int | None) and isinstance(end, int | None)):
        if value.is_real:
            return operator(context.real(x), dim, start, end, step)
        return by_parts(context, operator, x, dim, start, end, step)
    if value.is_real and value.is_pending and not context.is_read_once(x):
        return operator(context.real(x), dim, start, end, step)
    result = value.select(axis, positions(start, end, step, value.shape[axis]))
    return _with_native(context, operator, result, x, dim, start, end, step)


@rule("select")
def _select(context: Context, operator: Any, x: Any, dim: int, index: int) -> Any:
    value = context.value(x)
    axis = value.axis(dim)
    if value.fixed(axis) and isinstance(index, int) and value.is_pending:
        value = value.select(axis, np.array([index % value.shape[axis]]))
        return by_parts(context, operator, value, axis, 0)
    return by_parts(context, operator, x, dim, index)


@rule("index_select")
def _index_select(context: Context, operator: Any, x: Any, dim: int, index: Tensor) -> Any:
    value, rows = context.value(x), context.constant(index)
    axis = value.axis(dim)
    if rows is None or not value.fixed(axis):
        return by_parts(context, operator, x, dim, index)
    return value.select(axis, rows % value.shape[axis])


@rule("roll")
def _roll(context: Context, operator: Any, x: Any, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    value = context.value(x)
    if not dims or not all(value.fixed(value.axis(dim)) for dim in dims):
        return by_parts(context, operator, x, shifts, dims)
    for shift, dim in zip(shifts, dims, strict=True):
        axis = value.axis(dim)
        value = value.select(axis, np.roll(np.arange(value.shape[axis]), shift))
    return value


@rule("flip")
def _flip(context: Context, operator: Any, x: Any, dims: Sequence[int]) -> Any:
    value = context.value(x)
    if not all(value.fixed(value.axis(dim)) for dim in dims):
        return by_parts(context, operator, x, dims)
    for dim in dims:
        axis = value.axis(dim)
        value = value.select(axis, np.arange(value.shape[axis])[::-1])
    return value


@rule("constant_pad_nd")
def _pad(context: Context, operator: Any, x: Any, pad: Sequence[int], fill: Any = 0) -> Any:
    value = context.value(x)
    axes = [value.ndim - 1 - number for number in range(len(pad) // 2)]
    plain = fill == 0 and all(isinstance(width, int) for width in pad)
    if not plain or not all(value.fixed(axis) for axis in axes):
        if value.is_real:
            return operator(context.real(x), pad, fill)
        parts, fills = context.pair(x).parts, (complex(fill).real, complex(fill).imag)
        return from_parts(lambda part: operator(parts[part], pad, fills[part]))
    result = value
    for number, axis in enumerate(axes):
        before, after, size = pad[2 * number], pad[2 * number + 1], value.shape[axis]
        rows = np.arange(-before, size + after)
        if before or after:
            result = result.select(axis, np.where((rows < 0) | (rows >= size), -1, rows))
    return _with_native(context, operator, result, x, pad, fill)


@rule("pad")
def _pad_with_mode(
    context: Context, operator: Any, x: Any, pad: Sequence[int], mode: str = "constant", fill: Any = None
) -> Any:
    if mode == "constant":
        return _pad(context, torch.ops.aten.constant_pad_nd.default, x, pad, fill or 0)
    return by_parts(context, operator, x, pad, mode, fill)


@rule("slice_scatter")
def _slice_scatter(
    context: Context,
    operator: Any,
    x: Any,
    source: Any,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    value, inner = context.value(x), context.settled(source)
    axis = value.axis(dim)
    if _is_whole(start, end, step):
        return inner if not isinstance(source, Tensor) else source
    if not (value.fixed(axis) and isinstance(start, int | None) and isinstance(end, int | None)):
        return _scattered(context, operator, x, source, dim, start, end, step)
    if value.takes_real_part:
        value = context.settled(value)
    size = value.shape[axis]
    targets = positions(start, end, step, size)
    kept = np.arange(size)
    kept[targets] = -1
    result = value.select(axis, kept).plus(inner.embedded(axis, targets, size))
    pending = any(isinstance(one, LinearValue) and one.is_pending for one in (x, source))
    if result.is_real and not pending:
        arguments = map(context.real, (x, source))
        result.computed = operator(*arguments, dim, start, end, step)
    return result


@rule("select_scatter", "diagonal_scatter", "scatter", "scatter_add", "as_strided_scatter")
def _scattered(context: Context, operator: Any, x: Any, *args: Any, **keywords: Any) -> Any:
    """Apply the operator to both parts of all complex arguments; the others are the same for both."""
    arguments = [x, *args]
    if not any(map(is_complex, arguments)):
        return operator(*map(context.real, arguments), **keywords)
    floats = [
        isinstance(one, LinearValue | Constant) or (isinstance(one, Tensor) and one.is_floating_point())
        for one in arguments
    ]
    pairs = [context.pair(one) if part else one for one, part in zip(arguments, floats, strict=True)]
    return from_parts(
        lambda part: operator(
            *(one.parts[part] if isinstance(one, Pair) else one for one in pairs), **keywords
        )
    )


@rule("index_put")
def _index_put(
    context: Context, operator: Any, x: Any, indices: Any, values: Any, accumulate: bool = False
) -> Any:
    target, source = context.pair(x), context.pair(values)
    return from_parts(lambda part: operator(target.parts[part], indices, source.parts[part], accumulate))


@rule("copy")
def _copy(context: Context, operator: Any, x: Any, source: Any, *args: Any) -> Any:
    target = context.value(x)
    if not is_complex(x):
        if is_complex(source):
            return context.pair(source).real.expand(target.shape).clone()
        return operator(context.real(x), context.real(source), *args)
    value = context.value(source)
    shape = tuple(target.shape)
    if len(value.shape) == len(shape) and all(
        isinstance(size, int) is isinstance(wanted, int) and (not isinstance(size, int) or size == wanted)
        for size, wanted in zip(value.shape, shape, strict=True)
    ):
        return _as_complex(value)
    return context.each(source, lambda part: part.expand(shape))


def _as_complex(value: LinearValue) -> LinearValue:
    if not value.is_real:
        return value
    if value.takes_real_part:
        raise NotLowered("it uses the real part of a transform as a complex value")
    return LinearValue(value.shape, value.dtype, value.terms)


@rule("cat")
def _cat(context: Context, operator: Any, tensors: Sequence[Any], dim: int = 0) -> Any:
    values = [context.settled(one) for one in tensors]
    axis = values[0].axis(dim)
    if not all(one.fixed(axis) for one in values):
        return _stack(context, operator, tensors, dim)
    size, start = sum(one.shape[axis] for one in values), 0
    result = None
    for one in values:
        placed = one.embedded(axis, np.arange(start, start + one.shape[axis]), size)
        result = placed if result is None else result.plus(placed)
        start += one.shape[axis]
    assert result is not None
    return LinearValue(result.shape, result.dtype, result.terms)


@rule("stack")
def _stack(context: Context, operator: Any, tensors: Sequence[Any], dim: int = 0) -> Any:
    pairs = [context.pair(one) for one in tensors]
    return from_parts(lambda part: operator([one.parts[part] for one in pairs], dim))
