"""The compiled loop that adds patches to the sums, in one pass over each patch.

NumPy makes one pass for each operation (convert, interpolate, multiply, add) and takes about three times as long
(docs/decisions/0011-cpu-runtime.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["add_patches", "jit"]


def jit(function: Callable[..., None]) -> Any:
    """Compile a function at its first call, and cache the machine code on disk where possible.

    It runs without the interpreter lock, and indices are not checked.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no writable cache folder
        return njit(nogil=True, error_model="numpy")(function)


@jit
def add_patches(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    patches: NDArray[np.float32],
    weight: NDArray[np.float64],
    corners: NDArray[np.intp],
    fractions: NDArray[np.float64],
    interpolate: bool,
) -> None:
    """Add weighted patches and their weights to the sums, in the order of the patches, clipped to the canvas.

    Patches are interpolated in single precision, multiplied and added in double. A fraction of 0 leaves a patch
    unchanged, bit for bit.

    * `values`, `weights`: [rows, 2 * columns] and [rows, columns], the sums; real and imaginary parts alternate.
    * `patches`: [m, h, 2 * w]; real and imaginary parts alternate.
    * `weight`: [h, w], the same for each patch.
    * `corners`: [m, 2] (row, column), pixel of the sums under the first pixel of each patch.
    * `fractions`: [m, 2] in [0, 1), additional shift down and to the right. Weights are shifted bilinearly. The first
      row or column, which lacks a neighbour, is left out.
    * `interpolate`: whether to shift the patches too; otherwise they have been shifted before.
    """
    rows, columns = weights.shape
    height, width = weight.shape
    # Work arrays for one row. Views of whole rows without negative indices let the loops below be vectorised.
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
