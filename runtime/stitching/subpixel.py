"""Moving many patches at once by fractions of a pixel, and their weight with them.

All functions keep the size: pixel i of what they give is the value at i - fraction, so the last pixel moves out. At
pixel 0 of an axis with a fraction there is nothing to interpolate with: values mean nothing there, and
`shifted_weights` is 0. A fraction of 0 changes no bit.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

__all__ = ["bilinear", "fourier", "fourier_matrices", "shifted_weights", "weight_basis"]


def bilinear(patches: NDArray[np.complex64], fractions: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Patches [m, N, M] moved by fractions [m, 2] (row, column) in [0, 1) by bilinear interpolation."""
    count, _, width = patches.shape
    # Real and imaginary parts side by side, since real factors then cost real products; each patch in one row, since
    # that is one long loop instead of N short ones. Pixel 0 of a line is mixed with the line before.
    parts = patches.reshape(count, -1).view(np.float32)
    down, right = fractions.astype(np.float32).T[:, :, None]
    rows, moved = np.empty_like(parts), np.empty_like(parts)
    rows[:, : 2 * width] = parts[:, : 2 * width]
    _between(parts[:, : -2 * width], parts[:, 2 * width :], down, rows[:, 2 * width :])
    moved[:, :2] = rows[:, :2]
    _between(rows[:, :-2], rows[:, 2:], right, moved[:, 2:])
    return moved.view(np.complex64).reshape(patches.shape)


def _between(before: NDArray, here: NDArray, fraction: NDArray, out: NDArray) -> None:
    """`here` + `fraction` * (`before` - `here`), without temporary arrays."""
    np.subtract(before, here, out=out)
    np.multiply(out, fraction, out=out)
    np.add(out, here, out=out)


def fourier(
    patches: NDArray[np.complex64], fractions: NDArray[np.float64], support: tuple[slice, slice]
) -> NDArray[np.complex64]:
    """Patches [m, N, N] moved by fractions [m, 2] by a phase ramp on their Fourier modes; the pixels of `support`.

    A patch is continued by its mirror images, so that it has no edge. The ramp between two transforms of one axis
    is a real matrix, see `fourier_matrices`, and two products of matrices are many times faster than the transforms.
    """
    size = patches.shape[-1]
    rows, columns = (
        fourier_matrices(size, fractions[:, axis], support[axis]).astype(np.float32) for axis in (0, 1)
    )
    planes = np.stack([patches.real, patches.imag], axis=1)
    moved = rows[:, None] @ (planes @ columns.swapaxes(1, 2)[:, None])
    values = np.empty((len(moved), *moved.shape[2:]), dtype=np.complex64)
    values.real, values.imag = moved[:, 0], moved[:, 1]
    return values


def fourier_matrices(
    size: int, fractions: NDArray[np.float64], support: slice = slice(None)
) -> NDArray[np.float64]:
    """Rows `support` of the matrices [m, N, N] that move a signal of N samples by a fraction each.

    The signal f is continued to the period 2N by f[2N - 1 - n] = f[n]. Its mode at the Nyquist frequency is then 0,
    and a phase ramp on the others is a convolution with the Dirichlet kernel of that period,
    D(x) = sin(pi x) / (2N tan(pi x / 2N)). Sample n stands at n and at 2N - 1 - n:
    A[i, n] = D(i - d - n) + D(i - d + n + 1).
    """
    # One row of the kernel holds all distances: i - n from -(N - 1), then i + n + 1 up to 2N - 1.
    distances = np.arange(-(size - 1), 2 * size) - fractions[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        kernel = np.sin(np.pi * distances) / (2 * size * np.tan(np.pi * distances / (2 * size)))
    kernel[fractions == 0] = np.arange(-(size - 1), 2 * size) == 0
    step = kernel.strides[1]
    shape = (len(fractions), size, size)
    straight = as_strided(kernel[:, size - 1 :], shape, (kernel.strides[0], step, -step), writeable=False)
    mirrored = as_strided(kernel[:, size:], shape, (kernel.strides[0], step, step), writeable=False)
    return straight[:, support] + mirrored[:, support]


def weight_basis(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """The four images [4, N * M] that every bilinear shift of a weight [N, M] is a mixture of."""
    down = np.zeros_like(weight)
    down[1:] = weight[:-1]
    images = np.stack([weight, weight, down, down])
    images[1::2, :, 1:] = images[1::2, :, :-1].copy()
    images[1::2, :, 0] = 0
    return images.reshape(4, -1)


def shifted_weights(
    basis: NDArray[np.float64], shape: tuple[int, int], fractions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights [m, N, M] moved bilinearly by fractions [m, 2]; 0 where a neighbour is outside the patch."""
    down, right = fractions.T
    mixture = np.stack(
        [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], axis=1
    )
    weights = (mixture @ basis).reshape(-1, *shape)
    weights[down > 0, 0, :] = 0
    weights[right > 0, :, 0] = 0
    return weights
