"""Compute a `LinearValue`: thin products of real matrices, in the order with the fewest multiplications."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import AxisMap, is_same
from ptychonnx.export.lowering.torch.complex_arithmetic.constants import Constants
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue, Term
from ptychonnx.export.lowering.torch.complex_arithmetic.long_transform import is_long, long_transform
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.tensor_views import reshaped, select_entries

__all__ = ["compute"]


def compute(value: LinearValue, constants: Constants, gap: int | None = None) -> Tensor | Pair:
    """The tensor, or the pair if it is complex; with its two parts at `gap`, see `Pair`, a matter of speed alone."""
    if value.computed is None:
        value.computed = _compute(value, constants, gap)
    return value.computed


def _compute(value: LinearValue, constants: Constants, gap: int | None) -> Tensor | Pair:
    if value.is_zero:
        zeros = torch.zeros(value.shape, dtype=value.dtype)
        return zeros if value.is_real else Pair(zeros, zeros)
    terms = _joined([_trimmed(term) for term in value.terms])
    results = [_apply(term, constants, value.is_real, gap) for term in terms]
    if value.is_real:
        reals = [one if isinstance(one, Tensor) else one.real for one in results]
        return sum(reals[1:], reals[0])
    pairs = [one if isinstance(one, Pair) else Pair(one, torch.zeros_like(one)) for one in results]
    if len(pairs) == 1:
        return pairs[0]
    place = gap if pairs[0].gap is None else pairs[0].gap
    place = value.ndim if place is None else place
    stacked = [one.stacked(place) for one in pairs]
    return Pair(stacked=sum(stacked[1:], stacked[0]), gap=place)


def _trimmed(term: Term) -> Term:
    """Take only those entries of the source that any output depends on."""
    source, maps = term.source, list(term.maps)
    for axis, one in enumerate(maps):
        if one is None:
            continue
        used = one.used_columns
        if len(used) < one.inputs:
            source = _along(source, axis, partial(select_entries, rows=used))
            reduced = one.without_columns()
            maps[axis] = None if reduced.is_identity else reduced
    return Term(source, tuple(maps))


def _along(source: Tensor | Pair, axis: int, function: Callable[[Tensor, int], Tensor]) -> Tensor | Pair:
    return function(source, axis) if isinstance(source, Tensor) else source.along(axis, function)


def _joined(terms: list[Term]) -> list[Term]:
    """Terms that differ in one map become one term of concatenated sources."""
    position = 0
    while position < len(terms):
        first = terms[position]
        for other in terms[position + 1 :]:
            if (joined := _join(first, other)) is not None:
                terms = [one for one in terms if one is not first and one is not other]
                terms.insert(0, joined)
                position = -1
                break
        position += 1
    return terms


def _join(first: Term, other: Term) -> Term | None:
    if isinstance(first.source, Tensor) != isinstance(other.source, Tensor):
        return None
    differing = [
        axis
        for axis, (left, right) in enumerate(zip(first.maps, other.maps, strict=True))
        if not is_same(left, right)
    ]
    if len(differing) != 1:
        return None
    (axis,) = differing
    left, right = first.maps[axis], other.maps[axis]
    if left is None or right is None or not left.can_join(right):
        return None
    if isinstance(first.source, Tensor):
        assert isinstance(other.source, Tensor)
        source: Tensor | Pair = torch.cat([first.source, other.source], dim=axis)
    else:
        assert isinstance(other.source, Pair)
        gap = first.source.gap if first.source.gap is not None else other.source.gap
        gap = axis if gap is None else gap
        product = first.source.product
        joint = None if product is None else product.joined(other.source.product, axis)
        if joint is None:
            parts = [first.source.stacked(gap), other.source.stacked(gap)]
            joint = Pair(stacked=torch.cat(parts, dim=axis + (axis >= gap)), gap=gap)
        source = joint
    joined = left.joined(right)
    return Term(source, first.maps).with_map(axis, None if joined.is_identity else joined)


def _apply(term: Term, constants: Constants, is_real: bool, gap: int | None) -> Tensor | Pair:
    """Apply the maps of a term: what drops entries first, products next, zeros around the result last."""
    value: Tensor | Pair = term.source
    maps = {axis: one for axis, one in enumerate(term.maps) if one is not None}
    products = {axis: one for axis, one in maps.items() if not one.is_selection}
    selections = {axis: one for axis, one in maps.items() if one.is_selection}
    for axis, one in selections.items():
        if one.outputs <= one.inputs:
            value = _along(value, axis, partial(select_entries, rows=one.rows))
    order = _cheapest_order(products, value, is_real)
    for number, axis in enumerate(order):
        following = order[number + 1] if number + 1 < len(order) else None
        to_real = is_real and following is None
        place = _gap_after(axis, following, gap)
        one = products[axis]
        if isinstance(value, Tensor) and one.has_real_scales:
            to_real = True
        value = _multiply(value, axis, one, constants, to_real, place)
    for axis, one in selections.items():
        if one.outputs > one.inputs:
            value = _along(value, axis, partial(select_entries, rows=one.rows))
    if is_real and isinstance(value, Pair):
        return value.real
    return value


def _gap_after(axis: int, following: int | None, wanted: int | None) -> int:
    """Next to the axis that is transformed next, or where the reader wants it."""
    if following is not None:
        return axis if following < axis else axis + 1
    return wanted if wanted in (axis, axis + 1) else axis


def _cheapest_order(products: dict[int, AxisMap], value: Tensor | Pair, is_real: bool) -> Sequence[int]:
    """The order with the fewest multiplications; of equal ones, neighbouring axes, the last axis first."""
    sizes = [size if isinstance(size, int) else 1 for size in value.shape]
    last = len(sizes) - 1

    def cost(order: Sequence[int]) -> tuple[float, int, int]:
        lengths, parts, total = list(sizes), 1 if isinstance(value, Tensor) else 2, 0.0
        for number, axis in enumerate(order):
            after = 1 if is_real and number == len(order) - 1 else 2
            one = products[axis]
            rest = math.prod(lengths) / lengths[axis]
            total += rest * one.inputs * one.outputs * parts * after
            lengths[axis], parts = one.outputs, after
        steps = sum(abs(left - right) for left, right in itertools.pairwise(order))
        if not order:
            return total, steps, 0
        edge = (order[-1] != last) if is_real else (order[0] != last)
        return total, steps, int(edge)

    orders = itertools.permutations(products) if len(products) <= 4 else [tuple(products)]
    return min(orders, key=cost, default=())


def _multiply(
    value: Tensor | Pair, axis: int, one: AxisMap, constants: Constants, to_real: bool, gap: int
) -> Tensor | Pair:
    if is_long(one):
        return long_transform(value, axis, one, constants, to_real)
    matrix = one.dense()
    if not np.abs(matrix.imag).max() > 1e-14 * np.abs(matrix).max():
        if to_real and isinstance(value, Pair):
            value = value.real
        return _along(value, axis, lambda x, at: _product(x, at, at + 1, matrix.real, constants))
    parts = isinstance(value, Pair)
    if isinstance(value, Pair):
        place = value.gap if value.gap in (axis, axis + 1) else axis
        x = value.stacked(place)
    else:
        place, x = axis, value
    block = _real_block(matrix)[:, :, : 2 if parts else 1]
    block = block[:1] if to_real else block
    # [part out, row, part in, column] in the order of the axes in the tensors.
    if gap == axis + 1:
        block = block.transpose(1, 0, 2, 3)
    if place == axis + 1:
        block = block.transpose(0, 1, 3, 2)
    result = _product(x, axis, axis + (2 if parts else 1), block, constants)
    if to_real:
        return result
    shape = list(result.shape)
    pair = (2, one.outputs) if gap == axis else (one.outputs, 2)
    return Pair(stacked=reshaped(result, [*shape[:axis], *pair, *shape[axis + 1 :]]), gap=gap)


def _real_block(matrix: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Real form [part out, row, part in, column] of a complex matrix."""
    real, imaginary = matrix.real, matrix.imag
    return np.stack([np.stack([real, -imaginary], 1), np.stack([imaginary, real], 1)])


def _product(x: Tensor, start: int, stop: int, matrix: NDArray, constants: Constants) -> Tensor:
    """Multiply the axes from `start` to `stop`, taken together, by a matrix, into one axis."""
    shape = list(x.shape)
    length = math.prod(int(size) for size in shape[start:stop])
    matrix = matrix.reshape(-1, length)
    lead, rest = shape[:start], shape[stop:]
    if not rest:
        x = reshaped(x, [*lead, length])
        return x @ constants.tensor(matrix.T, x.dtype)
    x = reshaped(x, [*lead, length, math.prod(rest)])
    x = constants.tensor(matrix, x.dtype) @ x
    return reshaped(x, [*lead, matrix.shape[0], *rest])
