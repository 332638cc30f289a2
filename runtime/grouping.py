"""Groups of neighbouring patterns for networks with gridsize above 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

__all__ = ["group_neighbours"]


def group_neighbours(positions: NDArray[np.float64], gridsize: int) -> NDArray[np.intp]:
    """Indices [groups, gridsize**2] such that each group holds a pattern and its nearest neighbours.

    There is one group for each pattern, so every pattern is used; with gridsize 1 the groups are the patterns
    in their own order. Inside a group the patterns are sorted by row, then column, so that a raster scan always
    presents its neighbours in the same order.

    Parameters
    ----------
    positions
        float64 [n, 2] (row, column), pixels.

    Raises
    ------
    InputError
        If the scan has fewer patterns than a group needs.
    """
    channels = gridsize**2
    n = len(positions)
    if channels == 1:
        return np.arange(n)[:, None]
    if n < channels:
        raise InputError(f"gridsize {gridsize} needs groups of {channels} patterns, the scan has {n}")
    groups = np.empty((n, channels), dtype=np.intp)
    for seed, centre in enumerate(positions):
        distance = np.sum((positions - centre) ** 2, axis=1)
        nearest = np.argsort(distance, kind="stable")[:channels]
        # Half a pixel of jitter must not reorder a row of the raster.
        step = max(np.sqrt(distance[nearest].max()) / 2, 1e-9)
        rows = np.rint((positions[nearest, 0] - positions[nearest, 0].min()) / step)
        groups[seed] = nearest[np.lexsort((positions[nearest, 1], rows))]
    return groups
