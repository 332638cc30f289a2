"""The loop that adds patches to sums, compiled: one pass over each patch, in the caches of a processor.

What NumPy does in a pass for each operation (convert, interpolate, weigh, add) takes about three times as long
(docs/decisions/0011-cpu-runtime.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching.compiled import compiled

__all__ = ["add_patches"]


@compiled
def add_patches(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    patches: NDArray[np.float32],
    weight: NDArray[np.float64],
    corners: NDArray[np.intp],
    fractions: NDArray[np.float64],
    interpolate: bool,
) -> None:
    """Add weighted patches and their weights to sums, in the order of the patches; what lies outside is left out.

    Patches are interpolated in single precision, weighed and added in double. A fraction of 0 changes no bit.

    Parameters
    ----------
    values, weights
        [rows, 2 * columns] and [rows, columns], the sums; real and imaginary parts side by side.
    patches
        [m, h, 2 * w], real and imaginary parts side by side.
    weight
        [h, w], that of each patch.
    corners
        [m, 2] (row, column), where on the sums the first pixel of each patch lies.
    fractions
        [m, 2] in [0, 1), how much further down and to the right. Weights are moved there bilinearly. The first row or
        column, where there is nothing to interpolate with, is left out.
    interpolate
        Whether patches are moved so too, or have been.
    """
    rows, columns = weights.shape
    height, width = weight.shape
    # Scratch for one row. The loops below take views of whole rows and no negative index, so that they are vectorised.
    between_rows, moved = np.zeros(2 * width + 2, np.float32), np.empty(2 * width, np.float32)
    weight_between_rows, share, share_of_parts = np.zeros(width + 1), np.empty(width), np.empty(2 * width)
    for patch in range(len(patches)):
        row, column = corners[patch]
        down, right = fractions[patch]
        down_single, right_single = np.float32(down), np.float32(right)
        between = down > 0 or right > 0
        left, end = max(1 if right > 0 else 0, -column), min(width, columns - column)
        for i in range(max(1 if down > 0 else 0, -row), min(height, rows - row)):
            here, above = weight[i], weight[max(i - 1, 0)]
            if between:
                for j in range(width):
                    weight_between_rows[j + 1] = (1 - down) * here[j] + down * above[j]
                for j in range(width):
                    share[j] = (1 - right) * weight_between_rows[j + 1] + right * weight_between_rows[j]
            else:
                for j in range(width):
                    share[j] = here[j]
            for j in range(width):
                share_of_parts[2 * j] = share[j]
                share_of_parts[2 * j + 1] = share[j]
            line = patches[patch, i]
            if between and interpolate:
                line_above = patches[patch, max(i - 1, 0)]
                for j in range(2 * width):
                    between_rows[j + 2] = line[j] + down_single * (line_above[j] - line[j])
                for j in range(2 * width):
                    moved[j] = between_rows[j + 2] + right_single * (between_rows[j] - between_rows[j + 2])
            else:
                for j in range(2 * width):
                    moved[j] = line[j]
            weight_sums = weights[row + i, column + left : column + end]
            for j in range(end - left):
                weight_sums[j] += share[left + j]
            sums = values[row + i, 2 * (column + left) : 2 * (column + end)]
            for j in range(2 * (end - left)):
                sums[j] += share_of_parts[2 * left + j] * moved[2 * left + j]
