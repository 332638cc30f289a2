"""Operators that leave the entries as they are, and sums of entries; sizes, and tensors of one value."""

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
    Constant,
    Context,
    NotLowered,
    by_parts,
    from_parts,
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
    "nansum", "nan_to_num", "split", "split_with_sizes", "chunk", "unbind", "tensor_split",
)(by_parts)
# fmt: on


@rule(
    "alias", "clone", "detach", "contiguous", "lift_fresh_copy", "lift_fresh", "resolve_conj", "resolve_neg"
)
def _same(context: Context, operator: Any, x: Any, **keywords: Any) -> Any:
    return x


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
            return LinearValue(moved.shape, value.dtype, [moved], is_real=value.is_real)
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
    return statically_known_true(left == right)


@rule("fill")
def _fill(context: Context, operator: Any, x: Any, fill: Any) -> LinearValue:
    value, parts = context.value(x), context.both_parts(fill)
    return from_parts(lambda part: torch.as_tensor(parts[part], dtype=value.dtype).expand(value.shape))


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
    dtype = REAL_TYPES.get(wanted, torch.float32)
    if wanted is None and args and isinstance(args[0], LinearValue | Constant):
        dtype = context.value(args[0]).dtype
    if fill == 0:
        return LinearValue(shape, dtype, [])
    parts = complex(fill).real, complex(fill).imag
    return from_parts(lambda part: torch.full(shape, parts[part], dtype=dtype))


@rule("sym_size")
def _size(context: Context, operator: Any, x: Any, dim: int) -> Any:
    return context.value(x).shape[dim]


@rule("sym_numel", "numel")
def _count(context: Context, operator: Any, x: Any) -> Any:
    return math.prod(context.value(x).shape)


@rule("_assert_tensor_metadata")
def _nothing(context: Context, operator: Any, *args: Any, **keywords: Any) -> None:
    return None
