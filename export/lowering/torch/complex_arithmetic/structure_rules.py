"""Operators that leave the entries as they are: permutations, views, copies; and sums of entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue, Term
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.products import compute
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import (
    REAL_TYPES,
    Context,
    NotLowered,
    by_parts,
    is_complex,
    rule,
)
from ptychonnx.export.lowering.torch.complex_arithmetic.tensor_views import permuted

__all__ = ["STRUCTURAL"]

# Operators that keep a real value uncomputed, so that a transform before or behind them becomes smaller.
STRUCTURAL = {"slice", "slice_scatter", "constant_pad_nd", "view_as_complex", "alias", "clone", "detach"}


# fmt: off
rule(
    "unsqueeze", "squeeze", "repeat", "tile", "as_strided", "unfold", "gather", "diagonal", "take",
    "cumsum", "tril", "triu", "sum", "mean", "flatten", "unflatten", "neg", "index", "embedding",
    "masked_select", "narrow_copy", "diag_embed", "expand", "movedim", "swapaxes", "col2im", "im2col",
    "nansum", "nan_to_num"
)(by_parts)
# fmt: on


@rule(
    "alias", "clone", "detach", "contiguous", "lift_fresh_copy", "lift_fresh", "resolve_conj", "resolve_neg"
)
def _same(context: Context, operator: Any, x: Any, **keywords: Any) -> Any:
    return x


@rule("split", "split_with_sizes", "chunk", "unbind", "tensor_split")
def _split(context: Context, operator: Any, x: Any, *args: Any, **keywords: Any) -> Any:
    return by_parts(context, operator, x, *args, **keywords)


@rule("permute", "transpose", "t")
def _permute(context: Context, operator: Any, x: Any, *args: Any) -> Any:
    value = context.value(x)
    # On a tensor without entries, the operator itself says where its axes go.
    marked = torch.empty(tuple(range(2, 2 + value.ndim)), device="meta")
    order = [size - 2 for size in operator(marked, *args).shape]
    if value.is_pending and len(value.terms) == 1:
        (term,) = value.terms
        grows = math.prod(one.outputs / one.inputs for one in term.maps if one is not None)
        if grows > 1:
            moved = Term(_permuted(term.source, order), tuple(term.maps[axis] for axis in order))
            return LinearValue(
                [value.shape[axis] for axis in order], value.dtype, [moved], is_real=value.is_real
            )
    computed = compute(value, context.constants)
    return LinearValue.of(_permuted(computed, order))


def _permuted(source: Tensor | Pair, order: Sequence[int]) -> Tensor | Pair:
    if isinstance(source, Tensor):
        return permuted(source, order)
    if source.gap is None:
        return source.each(lambda part: part.permute(list(order)))
    # The axis of the parts stays in front of the axis that it is in front of.
    gap, ndim = source.gap, len(order)
    place = list(order).index(gap) if gap < ndim else ndim
    with_parts = [axis + (axis >= gap) for axis in order]
    with_parts.insert(place, gap)
    return Pair(stacked=permuted(source.stacked(gap), with_parts), gap=place)


@rule("view", "reshape", "_unsafe_view", "_reshape_alias")
def _view(context: Context, operator: Any, x: Any, shape: Any, *args: Any) -> Any:
    if isinstance(shape, torch.dtype):
        return _as_type(context, x, shape)
    pair = context.pair(x)
    if pair.gap is not None:
        old, new = list(pair.shape), list(shape)
        leading = 0
        while leading < min(len(old), len(new)) and _is_equal(old[leading], new[leading]):
            leading += 1
        if pair.gap <= leading:
            stacked = pair.stacked(pair.gap)
            sizes = [*new[: pair.gap], 2, *new[pair.gap :]]
            return LinearValue.of(Pair(stacked=stacked.reshape(sizes), gap=pair.gap))
    return LinearValue.of(pair.each(lambda part: part.reshape(list(shape))))


def _as_type(context: Context, x: Any, wanted: torch.dtype) -> Any:
    """Complex numbers as pairs of numbers next to each other on the last axis, or the other way round."""
    dtype = context.value(x).dtype
    if is_complex(x) and wanted == dtype:
        pair = context.pair(x)
        return pair.stacked(len(pair.shape)).flatten(-2)
    if not is_complex(x) and REAL_TYPES.get(wanted) == dtype:
        apart = context.real(x).unflatten(-1, (-1, 2))
        return LinearValue.of(Pair(stacked=apart, gap=apart.ndim - 1))
    raise NotLowered(f"it reads the memory of numbers as {str(wanted).removeprefix('torch.')}")


def _is_equal(left: Any, right: Any) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    return statically_known_true(left == right)
