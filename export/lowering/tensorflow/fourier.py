"""Fourier transforms of pairs of real and imaginary parts, as products with constant real matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["Pair", "inverse_real_transform", "real_transform", "transform"]

Pair = tuple[Any, Any]


def transform(x: Pair, sign: int, axis: int, length: int | None = None) -> Pair:
    """Complex transform of a pair along an axis from the end; the inverse (sign 1) is divided by the length.

    Points beyond `length` are left out.
    """
    length = length or _size(x[0], axis)
    cosine, sine = _matrices(min(length, _size(x[0], axis)), length, length, sign)
    if sign > 0:
        cosine, sine = cosine / length, sine / length
    real, imaginary = x
    return (
        _product(real, cosine, axis) - _product(imaginary, sine, axis),
        _product(real, sine, axis) + _product(imaginary, cosine, axis),
    )


def real_transform(x: Any, length: int) -> Pair:
    """The frequencies from 0 on of a real tensor, along its last axis."""
    cosine, sine = _matrices(min(_size(x, -1), length), length // 2 + 1, length, -1)
    return _product(x, cosine, -1), _product(x, sine, -1)


def inverse_real_transform(x: Pair, length: int) -> Any:
    """`length` real points from the frequencies from 0 on, along the last axis."""
    kept = min(_size(x[0], -1), length // 2 + 1)
    cosine, sine = _matrices(kept, length, length, 1)
    # All frequencies but the first, and the last of an even length, stand for two.
    weight = np.full((kept, 1), 2.0)
    weight[0] = 1
    if length % 2 == 0 and kept == length // 2 + 1:
        weight[-1] = 1
    cosine, sine = weight * cosine / length, weight * sine / length
    return _product(x[0], cosine, -1) - _product(x[1], sine, -1)


def _size(x: Any, axis: int) -> int:
    size = x.shape[axis]
    if size is None:
        raise UnsupportedError("a Fourier transform over an axis of unknown size, expected a fixed one")
    return int(size)


def _matrices(rows: int, columns: int, length: int, sign: int) -> Pair:
    """Cosine and sine [rows, columns] of the transform of `length` points."""
    # Reduced modulo the length first: large angles lose digits.
    angles = 2 * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % length) / length
    return np.cos(angles), sign * np.sin(angles)


def _product(x: Any, matrix: Any, axis: int) -> Any:
    """Multiply an axis, one of the last three, by a constant matrix [old, new]; entries beyond it are left out."""
    constant = tf.constant(matrix, x.dtype)
    if axis == -3:
        order = [*range(x.shape.rank - 3), x.shape.rank - 1, x.shape.rank - 2, x.shape.rank - 3]
        return tf.transpose(_product(tf.transpose(x, order), matrix, -1), order)
    rows = len(matrix)
    if axis == -1:
        return tf.matmul(x if x.shape[-1] == rows else x[..., :rows], constant)
    return tf.matmul(tf.transpose(constant), x if x.shape[-2] == rows else x[..., :rows, :])
