"""Fourier transforms of images and their rings, for ring correlation and power spectral density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = ["SMALLEST_SIDE", "Rings", "hann_window", "rings_of", "windowed_transform"]

SMALLEST_SIDE = 4


@dataclass(frozen=True)
class Rings:
    """Rings one Fourier pixel (of the shorter side) wide, from 1 up to the Nyquist frequency, without corners.

    * `frequency`: [rings], centre of each ring in cycles per pixel; the last is 0.5 if the shorter side is even.
    * `label`: int [rows, columns], number of the ring of each pixel of an unshifted transform; 0 is the mean, and
      numbers above ``len(frequency)`` are the corners.
    """

    frequency: NDArray[np.float64]
    label: NDArray[np.int64]

    def sum(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sums over each ring [rings] of values [rows, columns]."""
        sums = np.bincount(self.label.ravel(), weights=values.ravel())
        return sums.astype(np.float64)[1 : len(self.frequency) + 1]

    @property
    def pixels(self) -> NDArray[np.float64]:
        """Number of Fourier pixels in each ring [rings], counting both of a pair of Friedel mates."""
        return self.sum(np.ones(self.label.shape))


def rings_of(shape: tuple[int, ...]) -> Rings:
    """Rings of images of a shape (rows, columns).

    Raises InputError if a side has less than `SMALLEST_SIDE` pixels.
    """
    if len(shape) != 2 or min(shape) < SMALLEST_SIDE:
        raise InputError(
            f"Fourier rings: got images of shape {shape}, expected [rows, columns] of at least {SMALLEST_SIDE} x "
            f"{SMALLEST_SIDE}"
        )
    side = min(shape)
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    return Rings(np.arange(1, side // 2 + 1) / side, np.rint(radius * side).astype(np.int64))


def hann_window(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Hann window [rows, columns], sampled at half-pixels so that no pixel has weight 0."""
    rows, columns = (np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 for side in shape)
    return np.outer(rows, columns)


def windowed_transform(image: NDArray[np.floating]) -> NDArray[np.complex128]:
    """Unshifted Fourier transform [rows, columns] of an image without its mean, multiplied by a Hann window.

    Without the window, the jump between opposite borders would have power at every frequency. The mean is removed
    because the window would spread it into the lowest rings.
    """
    values = image.astype(np.float64)
    window = hann_window(values.shape)
    return np.fft.fft2(window * (values - np.average(values, weights=window)))
