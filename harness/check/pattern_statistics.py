"""Statistics of the patterns of a scan, from one pass over a sample of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import repeated_patterns, sample_of

__all__ = ["PatternStatistics", "pattern_statistics"]

# Patterns of a longer scan, evenly spread: enough for every statistic here.
_MOST_PATTERNS = 512
_AT_ONCE = 32
# Counts of amplitudes in single precision are whole numbers to within this part of themselves.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class PatternStatistics:
    """Statistics of a sample of the patterns, in photons.

    * `index`: int [m], numbers of the patterns.
    * `photons`: float64 [m], photons in each.
    * `mean`: float64 [N, N], mean pattern.
    * `highest`: most counts in a pixel.
    * `times_highest`, `pixels_highest`: number of patterns whose brightest pixel holds as many, and number of different
      such pixels.
    * `whole_counts`, `whole_amplitudes`, `whole_fourth_powers`: whether all counts, their square roots, or the squares
      of the counts are whole numbers.
    * `repeated`: int, patterns that equal an earlier one.
    """

    index: NDArray[np.intp]
    photons: NDArray[np.float64]
    mean: NDArray[np.float64]
    highest: float
    times_highest: int
    pixels_highest: int
    whole_counts: bool
    whole_amplitudes: bool
    whole_fourth_powers: bool
    repeated: tuple[int, ...]


def pattern_statistics(scan: Scan) -> PatternStatistics:
    """Read at most 512 patterns, evenly spread, and measure them; masked pixels do not count."""
    index = sample_of(len(scan), _MOST_PATTERNS)
    valid = scan.valid_pixels
    photons, total = [], np.zeros((scan.size, scan.size))
    tops: list[NDArray[np.float32]] = []
    brightest_pixels: list[NDArray[np.intp]] = []
    whole = dict.fromkeys((2, 1, 4), True)
    seen: set[bytes] = set()
    repeated: list[int] = []
    for start in range(0, len(index), _AT_ONCE):
        rows = index[start : start + _AT_ONCE]
        amplitudes = np.where(valid, np.asarray(scan.diffraction[rows]), np.float32(0))
        counts = np.square(amplitudes, dtype=np.float64)
        photons.append(counts.sum(axis=(1, 2)))
        total += counts.sum(axis=0)
        flat = amplitudes.reshape(len(rows), -1)
        tops.append(flat.max(axis=1))
        brightest_pixels.append(flat.argmax(axis=1))
        for power in whole:
            whole[power] = whole[power] and _whole(amplitudes, power)
        repeated += rows[repeated_patterns(amplitudes, seen)].tolist()
    brightest, places = np.concatenate(tops), np.concatenate(brightest_pixels)
    highest = float(brightest.max())
    saturated = brightest == highest
    return PatternStatistics(
        index=index,
        photons=np.concatenate(photons),
        mean=total / len(index),
        highest=highest**2,
        times_highest=int(saturated.sum()),
        pixels_highest=len(np.unique(places[saturated])),
        whole_counts=whole[2],
        whole_amplitudes=whole[1],
        whole_fourth_powers=whole[4],
        repeated=tuple(repeated),
    )


def _whole(amplitudes: NDArray[np.float32], power: int) -> bool:
    """Whether a power of all amplitudes is whole; not if single precision could not tell."""
    values = amplitudes.astype(np.float64) ** power
    tolerance = np.maximum(_ROUNDING * values, _ROUNDING)
    told = tolerance < 0.1
    return bool(told.any() and (np.abs(values - np.rint(values)) <= tolerance)[told].all())
