"""How much of the beam neighbouring positions of a scan share."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from ptychonnx.runtime.scan.probe_geometry import probe_diameter
from ptychonnx.runtime.scan.scan import Scan

__all__ = ["overlap_of"]


def overlap_of(scan: Scan) -> float | None:
    """``1 - distance of neighbouring positions / diameter of the probe``, at least 0; None without a probe."""
    if scan.probe is None or len(scan) < 2:
        return None
    distance = float(np.median(KDTree(scan.positions).query(scan.positions, 2)[0][:, 1]))
    return max(0.0, 1 - distance / probe_diameter(scan.probe))
