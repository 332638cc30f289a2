"""Moving many patches at once by fractions of a pixel, on their Fourier modes."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

__all__ = ["fourier_matrices", "shifted"]


def shifted(
    patches: NDArray[np.complex64], fractions: NDArray[np.float64], support: tuple[slice, slice]
) -> NDArray[np.complex64]:
    """Patches [m, N, N] moved by fractions [m, 2] by a phase ramp on their Fourier modes; the pixels of `support`.

    Pixel i is the value at i - fraction, so the last pixel moves out; a fraction of 0 changes no bit.

    A patch is continued by its mirror images, so that it has no edge. The ramp between two transforms of one axis
    is a real matrix, see `fourier_matrices`, and two products of matrices are many times faster than the transforms.
    """
    rows, columns = (
        fourier_matrices(patches.shape[-1], d, axis) for d, axis in zip(fractions.T, support, strict=True)
    )
    # A row of the real and one of the imaginary part in turns: one product of matrices for each axis.
    parts = np.stack([patches.real, patches.imag], axis=2)
    down = rows @ parts.reshape(*patches.shape[:2], -1)
    both = down.reshape(len(down), -1, patches.shape[2]) @ columns.swapaxes(1, 2)
    both = both.reshape(*down.shape[:2], 2, -1)
    values = np.empty((*down.shape[:2], both.shape[3]), dtype=np.complex64)
    values.real, values.imag = both[:, :, 0], both[:, :, 1]
    return values


def fourier_matrices(
    size: int, fractions: NDArray[np.float64], support: slice = slice(None)
) -> NDArray[np.float32]:
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
    kernel = kernel.astype(np.float32)
    step = kernel.strides[1]
    shape = (len(fractions), size, size)
    straight = as_strided(kernel[:, size - 1 :], shape, (kernel.strides[0], step, -step), writeable=False)
    mirrored = as_strided(kernel[:, size:], shape, (kernel.strides[0], step, step), writeable=False)
    return straight[:, support] + mirrored[:, support]
