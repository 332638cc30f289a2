"""Periods of an object, by which its place cannot be told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.metrics.convolution import convolve

__all__ = ["periods_of"]

# An image that correlates with itself by more than this repeats itself.
_SAME = 0.8
# Between two periods the correlation falls to this part of the peak at least; in a flat image it does not.
_FALL = 0.9
_SHORTEST_PX = 4.0
_MOST = 6


def periods_of(image: NDArray[np.complexfloating]) -> list[tuple[int, int]]:
    """Shifts (rows, columns), in whole pixels, that leave an image the same, the shortest first, at most six.

    They are the peaks of the autocorrelation beyond the central one, for shifts of up to half the image. Of a shift and
    its opposite only one is returned.

    `image` is complex [rows, columns] and finite.
    """
    from skimage.feature import peak_local_max

    centred = image - image.mean()
    if min(image.shape) < 2 * _SHORTEST_PX or not np.abs(centred).max() > 0:
        return []
    ones = np.ones(image.shape)
    correlation = convolve(centred, centred[::-1, ::-1].conj()).real
    # The energy of either image where the two overlap.
    energy = np.maximum(convolve(np.abs(centred) ** 2, ones), 1e-12 * np.sum(np.abs(centred) ** 2))
    correlation /= np.sqrt(energy * energy[::-1, ::-1])
    middle = np.array(image.shape) - 1
    half = np.array(image.shape) // 2
    # Correlations are symmetric: rows upwards are the same as rows downwards.
    inner = correlation[middle[0] :, middle[1] - half[1] : middle[1] + half[1] + 1][: half[0] + 1]
    peaks = peak_local_max(inner, min_distance=1, threshold_abs=_SAME, exclude_border=False)
    between = inner[peaks[:, 0] // 2, half[1] + (peaks[:, 1] - half[1]) // 2]
    shifts = peaks - (0, half[1])
    # A peak at the border of the search may only be a slope.
    inside = (shifts[:, 0] < half[0]) & (np.abs(shifts[:, 1]) < half[1])
    distinct = between < _FALL * inner[peaks[:, 0], peaks[:, 1]]
    shifts = shifts[inside & distinct & (np.hypot(*shifts.T) >= _SHORTEST_PX)]
    shifts = shifts[(shifts[:, 0] > 0) | (shifts[:, 1] > 0)]
    return sorted(map(tuple, shifts.tolist()), key=lambda shift: (np.hypot(*shift), shift))[:_MOST]
