"""Sub-pixel shifts of patches by a phase ramp on their Fourier modes, computed as products of real matrices.

A patch is extended by its mirror image, so that it has no edge: the signal f of N samples gets the period 2N by
f[2N - 1 - n] = f[n]. Its mode at the Nyquist frequency is then 0, and a phase ramp on the others is a convolution with
the Dirichlet kernel of that period, D(x) = sin(pi x) / (2N tan(pi x / 2N)). Sample n occurs at n and at 2N - 1 - n, so
a shift by d is the matrix A[i, n] = D(i - d - n) + D(i - d + n + 1). One product with such a matrix per axis is many
times faster than Fourier transforms of four times as many pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching.kernel import jit

__all__ = ["fourier_matrix", "shift"]


@jit
def shift(patches: NDArray[np.float32], fractions: NDArray[np.float64], moved: NDArray[np.float32]) -> None:
    """Shift patches into `moved`, whose pixel i is the value at i - fraction, so that the last one leaves the patch.

    * `patches`, `moved`: [m, N, 2 * N], real and imaginary parts side by side.
    * `fractions`: [m, 2] (row, column) in [0, 1). A fraction of 0 leaves that axis unchanged, bit for bit.
    """
    size = patches.shape[1]
    kernel = np.empty(3 * size - 1, np.float32)
    rows, columns = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    # Real and imaginary parts side by side need one matrix product per axis.
    parts, down = np.empty((size, 2 * size), np.float32), np.empty((size, 2 * size), np.float32)
    both = np.empty((2 * size, size), np.float32)
    for patch in range(len(patches)):
        fourier_matrix(fractions[patch, 0], kernel, rows)
        fourier_matrix(fractions[patch, 1], kernel, columns)
        for i in range(size):
            for j in range(size):
                parts[i, j] = patches[patch, i, 2 * j]
                parts[i, size + j] = patches[patch, i, 2 * j + 1]
        np.dot(rows, parts, down)
        np.dot(down.reshape(2 * size, size), columns.T, both)
        for i in range(size):
            for j in range(size):
                moved[patch, i, 2 * j] = both[2 * i, j]
                moved[patch, i, 2 * j + 1] = both[2 * i + 1, j]


@jit
def fourier_matrix(fraction: float, kernel: NDArray[np.float32], matrix: NDArray[np.float32]) -> None:
    """Fill `matrix` [N, N] with A for a fraction in [0, 1); `kernel` [3N - 1] is a work array.

    The kernel covers all distances, i - n from -(N - 1) and i + n + 1 up to 2N - 1. Relative to the nearest whole
    pixel they are p - e with |e| <= 1/2, so that sin(pi (p - e)) = -(-1)^p sin(pi e), and the tangent follows from sine
    and cosine of p and e without cancellation.
    """
    size = len(matrix)
    nearest = 1 if fraction > 0.5 else 0
    rest = fraction - nearest
    angle = math.pi / (2 * size)
    sine, cosine, scale = (
        math.sin(angle * rest),
        math.cos(angle * rest),
        -math.sin(math.pi * rest) / (2 * size),
    )
    for index in range(3 * size - 1):
        p = index - (size - 1) - nearest
        if rest == 0:
            kernel[index] = 1 if p == 0 else 0
            continue
        sine_p, cosine_p = math.sin(angle * p), math.cos(angle * p)
        cotangent = (cosine_p * cosine + sine_p * sine) / (sine_p * cosine - cosine_p * sine)
        kernel[index] = (scale if p % 2 == 0 else -scale) * cotangent
    for i in range(size):
        for n in range(size):
            matrix[i, n] = kernel[size - 1 + i - n] + kernel[size + i + n]
