"""Operators that take some entries along an axis, or surround them by others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import positions
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import Context, by_parts, rule

__all__ = ["is_whole"]

# torch writes the end of an axis as its largest integer.
_END = 1 << 62


def is_whole(start: Any, end: Any, step: int) -> bool:
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
    if is_whole(start, end, step):
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
        pair = context.pair(x)
        fill = complex(fill)
        return LinearValue.of(
            Pair(operator(pair.real, pad, fill.real), operator(pair.imaginary, pad, fill.imag))
        )
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
