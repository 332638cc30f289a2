"""Simulated objects, complex64 [rows, columns]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.draw import line_aa
from skimage.filters import gaussian

__all__ = ["lines_object"]

# Dense enough that a window always holds several lines, whatever the size of the canvas.
_PIXELS_PER_LINE = 300
_LENGTHS = (20.0, 100.0)


def lines_object(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    absorption: float = 0.5,
    phase_shift: float = 1.2,
) -> NDArray[np.complex64]:
    """Random straight lines, drawn once for the amplitude and once, elsewhere, for the phase.

    Parameters
    ----------
    shape
        (rows, columns) of the canvas.
    rng
        Source of the lines: the same generator state gives the same object.
    absorption
        The amplitude runs from 1 (no line) down to ``1 - absorption`` (the densest crossing).
    phase_shift
        The phase runs from 0 to this many radians. Amplitude and phase are not functions of each other.

    Returns
    -------
    complex64 [rows, columns], the transmission.
    """
    amplitude = 1 - absorption * _lines(shape, rng)
    phase = phase_shift * _lines(shape, rng)
    return (amplitude * np.exp(1j * phase)).astype(np.complex64)


def _lines(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Anti-aliased lines of random width and density, slightly blurred, scaled to [0, 1]."""
    canvas = np.zeros(shape)
    for _ in range(int(shape[0] * shape[1] / _PIXELS_PER_LINE)):
        length = rng.uniform(*_LENGTHS)
        angle = rng.uniform(0, np.pi)
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        width, density = int(rng.integers(1, 5)), rng.uniform(0.3, 1.0)
        half = length / 2 * np.array([np.sin(angle), np.cos(angle)])
        across = np.array([np.cos(angle), -np.sin(angle)])
        stroke = np.zeros(shape)
        for offset in np.arange(width) - (width - 1) / 2:
            (r0, c0), (r1, c1) = (np.array([row, column]) + offset * across + sign * half for sign in (-1, 1))
            rows, columns, value = line_aa(*(round(float(v)) for v in (r0, c0, r1, c1)))
            inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
            np.maximum.at(stroke, (rows[inside], columns[inside]), value[inside])
        canvas += density * stroke
    blurred = gaussian(canvas, sigma=1.0, preserve_range=True)
    return np.clip(blurred / np.quantile(blurred, 0.999), 0, 1)
