"""Batches of a scan that ranges of values are calibrated on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours, group_offsets

__all__ = ["calibration_batches"]

_BATCH = 8


def calibration_batches(contract: Contract, scan: Scan, patterns: int) -> list[tuple[NDArray, ...]]:
    """Every input of a network, for `patterns` groups evenly spread over a scan, in batches that it takes."""
    groups = group_neighbours(scan.positions, contract.gridsize)
    chosen = np.unique(np.linspace(0, len(groups) - 1, min(patterns, len(groups))).round().astype(np.intp))
    diffraction: NDArray = scan.diffraction[groups[chosen]]
    if contract.input.domain == "counts":
        counts = np.rint(np.square(diffraction, dtype=np.float64))
        diffraction = np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)
    inputs = [diffraction]
    if contract.offsets is not None:
        inputs.append(group_offsets(scan.positions, groups[chosen]))
    size = contract.batch or _BATCH
    return [
        # The last batch of a fixed size is filled up with the first patterns.
        tuple(array.take(range(start, start + size), axis=0, mode="wrap") for array in inputs)
        for start in range(0, len(diffraction), size)
    ]
