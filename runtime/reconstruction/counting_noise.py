"""Noise that counting photons leaves in an object, next to the contrast of the object.

Each pixel of the detector measures the amplitude of a wave with a variance of 1/4, however many photons it counts, and
so one of the two components of the wave. D photons on a pixel of the object thus hold the Fisher information 2 D on the
real part of the object there, and as much on its imaginary part: no unbiased reconstruction knows the pixel with a
variance ``E |O - O_true|^2`` below ``1 / D``. Where patterns overlap little, noise is larger. A reconstruction that
assumes something of the object, as networks do, may have less noise and a bias instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import illumination, window_corners

__all__ = ["CountingNoise", "counting_noise", "dose", "noise_level"]

# Pixels that count have at least this part of the largest dose.
_LIT = 0.1

# Rows of the object at a time, to save memory.
_ROWS = 256


@dataclass(frozen=True)
class CountingNoise:
    """Noise of the pixels of an object, and the contrast of the object.

    * `level`: standard deviation of a pixel, ``sqrt(E |O - O_true|^2)``, with the mean variance of the lit pixels.
    * `contrast`: standard deviation of the object over these pixels.
    """

    level: float
    contrast: float

    @property
    def share(self) -> float:
        """Noise over contrast."""
        return self.level / max(self.contrast, np.finfo(float).tiny)


def counting_noise(scan: Scan, stitched: Stitched) -> CountingNoise:
    """Noise and contrast of an object where it has at least a tenth of the largest dose; the scan has a probe."""
    photons = dose(scan, stitched.object.shape, stitched.origin)
    count, total, square = 0, 0j, 0.0
    for rows, lit in _lit_blocks(photons):
        values = stitched.object[rows][lit].astype(np.complex128)
        count += len(values)
        total += complex(values.sum())
        square += float(np.sum(values.real**2 + values.imag**2))
    count = max(count, 1)
    return CountingNoise(
        noise_level(photons), float(np.sqrt(max(square / count - abs(total / count) ** 2, 0.0)))
    )


def noise_level(photons: NDArray[np.float32]) -> float:
    """Noise of a pixel of an object, with the mean variance of the pixels that have a tenth of the largest dose.

    `photons`: dose [rows, columns].
    """
    count, variance = 0, 0.0
    for rows, lit in _lit_blocks(photons):
        count += int(np.count_nonzero(lit))
        variance += float(np.sum(1 / photons[rows][lit], dtype=np.float64))
    return float(np.sqrt(variance / max(count, 1)))


def dose(scan: Scan, shape: tuple[int, ...], origin: tuple[float, float]) -> NDArray[np.float32]:
    """Photons [rows, columns] that all patterns of a scan put on each pixel of an object; the scan has a probe.

    Positions are rounded to whole pixels; light beyond the object is left out.

    `shape`, `origin`: of the object: (rows, columns), and (row, column) of its first pixel in pixels of the scan.
    """
    assert scan.probe is not None
    size = scan.size
    light = illumination(scan.probe).astype(np.float32)
    total = np.zeros(shape, dtype=np.float32)
    for corner in np.rint(window_corners(scan.positions, size) - np.asarray(origin)).astype(int):
        low = np.clip(corner, 0, shape)
        high = np.clip(corner + size, 0, shape)
        (r0, c0), (r1, c1) = low, high
        total[r0:r1, c0:c1] += light[r0 - corner[0] : r1 - corner[0], c0 - corner[1] : c1 - corner[1]]
    return total


def _lit_blocks(photons: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
    """Rows of an object, and where they are lit."""
    least = max(_LIT * float(photons.max()), float(np.finfo(np.float32).tiny))
    for first in range(0, len(photons), _ROWS):
        rows = slice(first, first + _ROWS)
        yield rows, photons[rows] >= least
