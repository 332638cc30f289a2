"""Operators that put entries into a tensor, or tensors together: assignment, scatter, concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import positions
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import (
    Constant,
    Context,
    NotLowered,
    is_complex,
    rule,
)
from ptychonnx.export.lowering.torch.complex_arithmetic.selection_rules import is_whole


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
    if is_whole(start, end, step):
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
    last = max(i for i, one in enumerate(arguments) if isinstance(one, LinearValue | Constant))
    floats = [
        isinstance(one, LinearValue | Constant) or (isinstance(one, Tensor) and one.is_floating_point())
        for one in arguments
    ]
    pairs = [context.pair(one) if part else one for one, part in zip(arguments, floats, strict=True)]
    assert last >= 0
    halves = [
        operator(*(one.parts[part] if isinstance(one, Pair) else one for one in pairs), **keywords)
        for part in (0, 1)
    ]
    return LinearValue.of(Pair(*halves))


@rule("index_put")
def _index_put(
    context: Context, operator: Any, x: Any, indices: Any, values: Any, accumulate: bool = False
) -> Any:
    target, source = context.pair(x), context.pair(values)
    halves = [operator(target.parts[part], indices, source.parts[part], accumulate) for part in (0, 1)]
    return LinearValue.of(Pair(*halves))


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
    return LinearValue.of(context.pair(source).each(lambda part: part.expand(shape)))


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
        pairs = [context.pair(one) for one in tensors]
        return LinearValue.of(Pair(*(operator([one.parts[part] for one in pairs], dim) for part in (0, 1))))
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
    return LinearValue.of(Pair(*(operator([one.parts[part] for one in pairs], dim) for part in (0, 1))))
