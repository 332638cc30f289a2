"""The photon counts of a scan, as its detector sent them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.scan import Scan

__all__ = ["ScanCounts"]

# Largest distance of a square from a whole number, relative to it, that float32 amplitudes explain.
_ROUNDING = 1e-6
_BLOCK = 64


class ScanCounts:
    """Counts by number: squares of the amplitudes, rounded to whole photons.

    Attributes
    ----------
    dtype
        uint16, or uint32 if a count needs it.
    rounded
        True if amplitudes are no square roots of whole numbers, so that the counts differ from them.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan, self.rounded, largest = scan, False, 0.0
        for start in range(0, len(scan), _BLOCK):
            photons = np.square(scan.diffraction[start : start + _BLOCK], dtype=np.float64)
            self.rounded |= bool((np.abs(photons - np.rint(photons)) > _ROUNDING * photons + 1e-9).any())
            largest = max(largest, float(photons.max()))
        # The largest value of a type marks bad pixels.
        self.dtype = np.dtype(np.uint16 if largest < np.iinfo(np.uint16).max else np.uint32)

    def __len__(self) -> int:
        return len(self._scan)

    def __getitem__(self, number: int) -> NDArray:
        photons = np.square(self._scan.diffraction[number], dtype=np.float64)
        return np.rint(photons).astype(self.dtype)
