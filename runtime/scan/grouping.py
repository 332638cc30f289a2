"""Groups of neighbouring patterns for networks with gridsize above 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = ["covering_groups", "group_neighbours", "group_offsets", "nearest_groups"]


def group_neighbours(positions: NDArray[np.float64], gridsize: int) -> NDArray[np.intp]:
    """Groups [n, gridsize**2] of neighbouring patterns, one for each pattern; see `nearest_groups`."""
    return nearest_groups(positions, gridsize**2)


def covering_groups(positions: NDArray[np.float64], gridsize: int) -> NDArray[np.intp]:
    """A small selection [m, gridsize**2] of the groups of `group_neighbours` that contains every pattern.

    The selection is greedy: first groups without any pattern covered so far, then those with one, and so on. On a
    raster about a third of the groups are selected.
    """
    groups = group_neighbours(positions, gridsize)
    members = groups.shape[1]
    if members == 1:
        return groups
    every, covered, chosen = groups.tolist(), bytearray(len(groups)), []
    for seen in range(members):
        for index, group in enumerate(every):
            if sum(covered[pattern] for pattern in group) <= seen:
                chosen.append(index)
                for pattern in group:
                    covered[pattern] = 1
    return groups[np.sort(chosen)]


def group_offsets(positions: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float32]:
    """Positions of each group's patterns relative to its first, [n, members, 2] (row, column), in pixels.

    A network that takes them sees distances within a group only.
    """
    return (positions[groups] - positions[groups[:, :1]]).astype(np.float32)


def nearest_groups(positions: NDArray[np.float64], members: int) -> NDArray[np.intp]:
    """Indices [n, members] such that group i holds pattern i and its nearest neighbours.

    There is one group for each pattern, so every pattern is used; groups of one are the patterns in their own
    order. Within a group, patterns are sorted by row, then column, so that a raster scan always presents its neighbours
    in the same order.

    Raises InputError if the scan has fewer patterns than a group needs.

    `positions`: float64 [n, 2] (row, column), pixels.
    """
    n = len(positions)
    if members == 1:
        return np.arange(n)[:, None]
    if n < members:
        raise InputError(f"a group needs {members} patterns, the scan has {n}")
    nearest = _nearest(positions, members)
    rows, columns = positions[nearest, 0], positions[nearest, 1]
    # Half a step of jitter must not reorder a row of the raster.
    distance = np.hypot(rows - positions[:, :1], columns - positions[:, 1:])
    step = np.maximum(distance.max(axis=1, keepdims=True) / 2, 1e-9)
    lines = np.rint((rows - rows.min(axis=1, keepdims=True)) / step)
    return np.take_along_axis(nearest, np.lexsort((columns, lines)), axis=1)


def _nearest(positions: NDArray[np.float64], members: int) -> NDArray[np.intp]:
    """Indices [n, members] of the nearest patterns, nearest first; ties go to the earlier pattern of the scan."""
    # More than needed, so that ties are among them.
    asked = min(2 * members + 8, len(positions))
    # Takes half a second to load, as long as the rest of a session, and only groups need it.
    from scipy.spatial import KDTree

    candidates = np.sort(KDTree(positions).query(positions, asked)[1], axis=1)
    distance = np.sum((positions[candidates] - positions[:, None]) ** 2, axis=2)
    order = np.argsort(distance, axis=1, kind="stable")
    nearest = np.take_along_axis(candidates, order, axis=1)[:, :members]
    distance = np.take_along_axis(distance, order, axis=1)
    if asked < len(positions):
        # The last neighbour may tie with patterns that the query left out.
        for row in np.flatnonzero(distance[:, members - 1] * (1 + 1e-9) >= distance[:, -1]):
            from_row = np.sum((positions - positions[row]) ** 2, axis=1)
            nearest[row] = np.argsort(from_row, kind="stable")[:members]
    return nearest
