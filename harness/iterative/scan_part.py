"""The part of a scan on which trials of a few epochs run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ptychonnx.runtime.scan import Scan

__all__ = ["PATTERNS", "structured_part"]

# Patterns that it takes to tell.
PATTERNS = 64
# Places that are tried for the part of the scan with the most structure.
_PLACES = 5


def structured_part(scan: Scan) -> NDArray[np.intp]:
    """Neighbouring patterns where they differ most: of several places, the one with the most structure."""
    count = min(PATTERNS, len(scan))
    tree = KDTree(scan.positions)
    low, high = scan.positions.min(axis=0), scan.positions.max(axis=0)
    best, structure = np.arange(count), -1.0
    middle = (low + high) / 2
    for place in range(_PLACES):
        corner = np.array([place // 2 % 2, place % 2]) if place < _PLACES - 1 else 0.5
        centre = middle + (corner - 0.5) * (high - low) / 2
        part = np.sort(tree.query(centre, count)[1])
        amplitudes = np.asarray(scan.diffraction[part], dtype=np.float64)
        differs = float(amplitudes.var(axis=0).sum() / np.square(amplitudes).mean(axis=0).sum())
        if differs > structure:
            best, structure = part, differs
        if count == len(scan):
            break
    return best
