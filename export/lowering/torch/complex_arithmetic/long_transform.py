"""Fourier transforms of long axes: the Cooley-Tukey factorisation as products with small matrices."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import AxisMap, Fourier
from ptychonnx.export.lowering.torch.complex_arithmetic.constants import Constants
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.tensor_views import reshaped, select_entries

__all__ = ["factors", "is_long", "long_transform"]

# Up to this length one product is faster than two with twiddle factors between; see docs/decisions/0028.
LONGEST_PRODUCT = 255


def is_long(one: AxisMap) -> bool:
    """Whether factors cost less than the product with the matrix of a map."""
    if not isinstance(one.kernel, Fourier) or one.kernel.size <= LONGEST_PRODUCT:
        return False
    parts = factors(one.kernel.size)
    if len(parts) == 1:
        return False
    return one.inputs * one.outputs > 2 * one.kernel.size * sum(parts)


@functools.cache
def factors(size: int) -> tuple[int, ...]:
    """Two factors that are as equal as possible, split again while they are long; the size itself if prime."""
    if size <= LONGEST_PRODUCT:
        return (size,)
    divisors = [n for n in range(math.isqrt(size), 1, -1) if size % n == 0]
    if not divisors:
        return (size,)
    return (*factors(size // divisors[0]), *factors(divisors[0]))


def long_transform(
    value: Tensor | Pair, axis: int, one: AxisMap, constants: Constants, to_real: bool
) -> Tensor | Pair:
    """Apply a map whose kernel is a Fourier transform along an axis of a tensor."""
    assert isinstance(one.kernel, Fourier)
    transform = one.kernel
    pair = value if isinstance(value, Pair) else Pair(value, torch.zeros_like(value))
    if one.column_scales is not None:
        pair = _scaled(pair, axis, one.column_scales, constants)
    places = np.full(transform.size, -1)
    used = one.columns >= 0
    places[one.columns[used]] = np.flatnonzero(used)
    pair = pair.along(axis, lambda x, at: select_entries(x, at, places))
    ndim = len(pair.shape)
    x = (
        pair.stacked(ndim - 1)
        if axis == ndim - 1
        else torch.movedim(pair.stacked(axis), (axis, axis + 1), (-2, -1))
    )
    x = _transform(x, transform.size, transform.sign, transform.scale, constants)
    x = x if axis == ndim - 1 else torch.movedim(x, (-2, -1), (axis, axis + 1))
    result = Pair(stacked=x, gap=axis)
    result = result.along(axis, lambda x, at: select_entries(x, at, one.rows))
    if one.row_scales is not None:
        result = _scaled(result, axis, one.row_scales, constants)
    return result.real if to_real else result


def _scaled(pair: Pair, axis: int, scales: np.ndarray, constants: Constants) -> Pair:
    trailing = (1,) * (len(pair.shape) - 1 - axis)
    real, imaginary = (
        constants.tensor(part.reshape(-1, *trailing), pair.dtype) for part in (scales.real, scales.imag)
    )
    if not scales.imag.any():
        return Pair(pair.real * real, pair.imaginary * real)
    return Pair(pair.real * real - pair.imaginary * imaginary, pair.real * imaginary + pair.imaginary * real)


def _transform(x: Tensor, size: int, sign: int, scale: float, constants: Constants) -> Tensor:
    """[..., p, size] to the same: ``position = i a + j`` and ``frequency = k + l b``, for size = a b."""
    if len(factors(size)) == 1:
        return _direct(x, size, sign, scale, constants)
    a = next(n for n in range(math.isqrt(size), 1, -1) if size % n == 0)
    b = size // a
    lead = list(x.shape[:-2])
    # Over i: [..., p, i, j] to [..., j, p, i] to [..., j, p, k].
    x = reshaped(x, [*lead, 2, b, a]).movedim(-1, -3)
    x = _transform(x, b, sign, 1.0, constants)
    # Twiddle factors [j, k], then over j: [..., k, p, j] to [..., k, p, l].
    angles = sign * 2 * math.pi / size * np.outer(np.arange(a), np.arange(b))
    cosines = constants.tensor(scale * np.cos(angles), x.dtype)
    sines = constants.tensor(scale * np.sin(angles), x.dtype)
    real, imaginary = x.select(-2, 0), x.select(-2, 1)
    twisted = [real * cosines - imaginary * sines, real * sines + imaginary * cosines]
    x = torch.stack(twisted, dim=-3).movedim(-1, -3)
    x = _transform(x, a, sign, 1.0, constants)
    return reshaped(x.movedim(-3, -1), [*lead, 2, size])


def _direct(x: Tensor, size: int, sign: int, scale: float, constants: Constants) -> Tensor:
    """[..., p, size] to the same by one product."""
    matrix = Fourier(size, sign, scale).matrix(np.arange(size), np.arange(size))
    rows = np.concatenate([np.stack([matrix.real, -matrix.imag], 1), np.stack([matrix.imag, matrix.real], 1)])
    product = reshaped(x, [*x.shape[:-2], 2 * size]) @ constants.tensor(rows.reshape(2 * size, -1).T, x.dtype)
    return reshaped(product, list(x.shape))
