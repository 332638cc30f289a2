"""Convolution of images by Fourier transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["convolve"]


def convolve(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """`scipy.signal.fftconvolve` of two images, bit for bit; `scipy.signal` takes a second to import.

    Returns [r1 + r2 - 1, c1 + c2 - 1], complex if either image is.
    """
    from scipy import fft

    is_complex = np.iscomplexobj(first) or np.iscomplexobj(second)
    rows, columns = (a + b - 1 for a, b in zip(first.shape, second.shape, strict=True))
    shape = [fft.next_fast_len(length, not is_complex) for length in (rows, columns)]
    forward, inverse = (fft.fftn, fft.ifftn) if is_complex else (fft.rfftn, fft.irfftn)
    return inverse(forward(first, shape) * forward(second, shape), shape)[:rows, :columns]
