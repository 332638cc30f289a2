"""Groups of neighbouring patterns for networks with gridsize above 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

__all__ = ["group_neighbours", "nearest_groups"]


def group_neighbours(positions: NDArray[np.float64], gridsize: int) -> NDArray[np.intp]:
    """Groups [n, gridsize**2] of neighbouring patterns, one for each pattern; see `nearest_groups`."""
    return nearest_groups(positions, gridsize**2)


def nearest_groups(positions: NDArray[np.float64], members: int) -> NDArray[np.intp]:
    """Indices [n, members] such that group i holds pattern i and those nearest to it.

    There is one group for each pattern, so every pattern is used; groups of one are the patterns in their own
    order. Inside a group the patterns are sorted by row, then column, so that a raster scan always presents its
    neighbours in the same order.

    Parameters
    ----------
    positions
        float64 [n, 2] (row, column), pixels.

    Raises
    ------
    InputError
        If the scan has fewer patterns than a group needs.
    """
    n = len(positions)
    if members == 1:
        return np.arange(n)[:, None]
    if n < members:
        raise InputError(f"a group needs {members} patterns, the scan has {n}")
    groups = np.empty((n, members), dtype=np.intp)
    for seed, centre in enumerate(positions):
        distance = np.sum((positions - centre) ** 2, axis=1)
        nearest = np.argsort(distance, kind="stable")[:members]
        # Half a step of jitter must not reorder a row of the raster.
        step = max(np.sqrt(distance[nearest].max()) / 2, 1e-9)
        rows = np.rint((positions[nearest, 0] - positions[nearest, 0].min()) / step)
        groups[seed] = nearest[np.lexsort((positions[nearest, 1], rows))]
    return groups
