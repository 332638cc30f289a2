"""Fourier transforms of Keras as products of real matrices, while a graph is traced.

`keras.ops.fft` and its relatives take and return pairs of real and imaginary parts, so that nothing complex remains
once the transforms themselves are products. ONNX engines have no such transforms, or slow and incomplete ones.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["real_transforms"]

_Pair = tuple[Any, Any]


@contextmanager
def real_transforms() -> Iterator[None]:
    """Replace the one- and two-dimensional transforms of Keras inside a `with` block."""
    backend = importlib.import_module("keras.src.backend.tensorflow.math")
    replaced = {
        "fft": lambda x: _transform(x, -1, -1),
        "fft2": lambda x: _transform(_transform(x, -1, -1), -1, -2),
        "ifft2": lambda x: _transform(_transform(x, 1, -1), 1, -2),
        "rfft": _rfft,
        "irfft": _irfft,
    }
    before = {name: getattr(backend, name) for name in replaced}
    for name, function in replaced.items():
        setattr(backend, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(backend, name, function)


def _length(x: Any, axis: int) -> int:
    length = x.shape[axis]
    if length is None:
        raise UnsupportedError("a Fourier transform over an axis of unknown size, expected a fixed one")
    return int(length)


def _matrices(rows: int, columns: int, length: int, sign: int) -> _Pair:
    """Cosine and sine [rows, columns] of the transform of `length` points."""
    # Reduced modulo the length first: large angles lose digits.
    angles = 2 * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % length) / length
    return np.cos(angles), sign * np.sin(angles)


def _product(x: Any, matrix: Any, axis: int) -> Any:
    """Multiply an axis, the last or the last but one, by a constant matrix [old, new]."""
    constant = tf.constant(matrix, x.dtype)
    return tf.matmul(x, constant) if axis == -1 else tf.matmul(tf.transpose(constant), x)


def _transform(x: _Pair, sign: int, axis: int) -> _Pair:
    """Complex transform of a pair along an axis; the inverse (sign 1) is divided by the length."""
    real, imaginary = map(tf.convert_to_tensor, x)
    length = _length(real, axis)
    cosine, sine = _matrices(length, length, length, sign)
    if sign > 0:
        cosine, sine = cosine / length, sine / length
    return (
        _product(real, cosine, axis) - _product(imaginary, sine, axis),
        _product(real, sine, axis) + _product(imaginary, cosine, axis),
    )


def _rfft(x: Any, fft_length: int | None = None) -> _Pair:
    x = tf.convert_to_tensor(x)
    present = _length(x, -1)
    length = present if fft_length is None else int(fft_length)
    # Points beyond the input are zeros, and points beyond the length are left out.
    cosine, sine = _matrices(min(present, length), length // 2 + 1, length, -1)
    x = x[..., : min(present, length)]
    return _product(x, cosine, -1), _product(x, sine, -1)


def _irfft(x: _Pair, fft_length: int | None = None) -> Any:
    real, imaginary = map(tf.convert_to_tensor, x)
    present = _length(real, -1)
    length = 2 * (present - 1) if fft_length is None else int(fft_length)
    kept = min(present, length // 2 + 1)
    cosine, sine = _matrices(kept, length, length, 1)
    # All frequencies but the first, and the last of an even length, stand for two.
    weight = np.full((kept, 1), 2.0)
    weight[0] = 1
    if length % 2 == 0 and kept == length // 2 + 1:
        weight[-1] = 1
    cosine, sine = weight * cosine / length, weight * sine / length
    return _product(real[..., :kept], cosine, -1) - _product(imaginary[..., :kept], sine, -1)
