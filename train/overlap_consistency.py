"""Disagreement of overlapping patches of held-out patterns about the object.

The loss of a physics-informed network can fall while the object gets worse: one pattern of a complex object is
under-determined. Patches of neighbouring patterns show the same object twice, so their disagreement is a second
opinion that needs no known object. It is divided by the contrast of the object, because blank patches agree
perfectly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEIGHBOURS", "overlap_disagreement"]

NEIGHBOURS = 4
"""Patterns in a group: a held-out one and those nearest to it."""


def overlap_disagreement(
    patches: NDArray[np.complexfloating], offsets: NDArray[np.integer], weight: NDArray[np.floating]
) -> float:
    """Variance of patches about their merged object, over the variance of that object.

    It is 0 if all patches [groups, members, N, N] agree, about 1 if they are unrelated; NaN if no two patches overlap
    or the object is blank. Only pixels inside more than one window count, each weighted by the illumination of a window
    [N, N] or [groups, N, N], positive. Offsets [groups, members, 2] (row, column) are those of each window in its
    group, at least 0.
    """
    between, contrast = 0.0, 0.0
    weights = np.broadcast_to(weight, (len(patches), *weight.shape[-2:]))
    for members, places, weight in zip(patches.astype(np.complex128), offsets, weights, strict=True):
        size = members.shape[-1]
        total = np.zeros(places.max(axis=0) + size, dtype=np.complex128)
        light, count = np.zeros(total.shape), np.zeros(total.shape, dtype=int)
        windows = [np.s_[row : row + size, column : column + size] for row, column in places]
        for patch, window in zip(members, windows, strict=True):
            total[window] += weight * patch
            light[window] += weight
            count[window] += 1
        shared = count > 1
        if not shared.any():
            continue
        merged = np.divide(total, light, out=np.zeros_like(total), where=light > 0)
        for patch, window in zip(members, windows, strict=True):
            between += float(np.sum((weight * np.abs(patch - merged[window]) ** 2)[shared[window]]))
        mean = np.average(merged[shared], weights=light[shared])
        contrast += float(np.sum(light[shared] * np.abs(merged[shared] - mean) ** 2))
    # The contrast of a blank object consists of rounding errors.
    floor = 1e-10 * float(np.sum(weights))
    return between / contrast if contrast > floor else float("nan")
