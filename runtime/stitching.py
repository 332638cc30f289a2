"""Merging patches into one object: weighted, complex-valued, at sub-pixel positions, in any order.

Complex values are averaged as such: averaging amplitude and phase apart breaks where the phase wraps.
Each pixel is the weighted mean of the patches that reach it; where none does, the object is 0 and
`Stitched.covered` is False. Nothing is divided by an epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from runtime.contract import Weighting
from runtime.errors import InputError
from runtime.physics import illumination, window_corners

__all__ = ["MAX_CANVAS_PIXELS", "Stitched", "Stitcher", "patch_weight"]

# 16384 x 16384 takes 6 GB of accumulators: beyond it the positions are surely not in pixels.
MAX_CANVAS_PIXELS = 2**28


@dataclass(frozen=True)
class Stitched:
    """A merged object.

    Attributes
    ----------
    object
        complex64 [rows, columns]; 0 where no patch reaches.
    weight
        float64 [rows, columns], sum of the weights that each pixel received.
    origin
        (row, column) of pixel [0, 0] in the coordinates of `Scan.positions`.
    """

    object: NDArray[np.complex64]
    weight: NDArray[np.float64]
    origin: tuple[float, float]

    @property
    def covered(self) -> NDArray[np.bool_]:
        """True where at least one patch contributed."""
        return self.weight > 0


def patch_weight(
    weighting: str, size: int, probe: NDArray[np.complexfloating] | None = None
) -> NDArray[np.float64]:
    """Weight [size, size] of each pixel of a patch.

    * ``probe``: the illumination sum_modes |P|^2: where photons fell, the network knows the object.
    * ``window``: a Hann window, for scans without a known probe.
    * ``uniform``: 1 everywhere.
    * ``crop``: 1 in the central half of each axis, 0 outside.

    Raises
    ------
    InputError
        If the weighting is unknown, or `probe` is chosen and none is known.
    """
    if weighting == "probe":
        if probe is None:
            raise InputError("weighting 'probe' needs a probe and the scan has none: choose another")
        density = illumination(probe)
        return density / density.max()
    if weighting == "window":
        # Sampled at half-pixels, so that no weight is 0 and the borders of the canvas are covered.
        profile = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
        return np.outer(profile, profile)
    if weighting == "uniform":
        return np.ones((size, size))
    if weighting == "crop":
        weight = np.zeros((size, size))
        margin = size // 4
        weight[margin : size - margin, margin : size - margin] = 1.0
        return weight
    raise InputError(f"weighting {weighting!r} is unknown, expected one of {', '.join(get_args(Weighting))}")


class Stitcher:
    """Accumulates patches on a canvas in float64.

    At a sub-pixel position a patch and its weight are interpolated (bilinearly) onto the canvas, each by
    itself. The error of a patch of a twice differentiable object is then at most (|f_rr| + |f_cc|) / 8 per
    squared pixel, whatever the weight; at whole-pixel positions there is none. A fraction costs a patch its
    first row and column, where not all four neighbours are inside.
    """

    def __init__(self, positions: NDArray[np.float64], weight: NDArray[np.float64]) -> None:
        """Lay out a canvas that holds every window.

        Parameters
        ----------
        positions
            float64 [n, 2] (row, column), centres of all windows to come, in pixels.
        weight
            [N, N] from `patch_weight`.

        Raises
        ------
        InputError
            If the canvas would be larger than `MAX_CANVAS_PIXELS`.
        """
        self._size = weight.shape[0]
        self._weight = weight.astype(np.float64)
        corners = window_corners(positions, self._size)
        low = np.floor(corners.min(axis=0))
        rows, columns = (np.floor(corners.max(axis=0)) - low + self._size + 1).tolist()
        if rows * columns > MAX_CANVAS_PIXELS:
            raise InputError(
                f"the positions span a canvas of {rows:.0f} x {columns:.0f} pixels, expected at most "
                f"{MAX_CANVAS_PIXELS} pixels in all: are the positions in pixels?"
            )
        self._low = low
        self._sum = np.zeros((int(rows), int(columns)), dtype=np.complex128)
        self._total = np.zeros((int(rows), int(columns)))

    def add(self, patches: NDArray[np.complexfloating], positions: NDArray[np.float64]) -> None:
        """Add patches [m, N, N] centred at positions [m, 2]; any number of times, in any order."""
        corners = window_corners(positions, self._size) - self._low
        whole = np.floor(corners).astype(int)
        fraction = corners - whole
        for patch, (row, column), (down, right) in zip(patches, whole, fraction, strict=True):
            values, weight = patch, self._weight
            if down or right:
                values, weight = _shift(values, down, right), _shift_weight(weight, down, right)
            height, width = weight.shape
            region = (slice(row, row + height), slice(column, column + width))
            self._sum[region] += weight * values
            self._total[region] += weight

    def result(self) -> Stitched:
        """The weighted mean so far."""
        covered = self._total > 0
        mean = np.zeros_like(self._sum)
        np.divide(self._sum, self._total, out=mean, where=covered)
        return Stitched(
            mean.astype(np.complex64), self._total.copy(), (float(self._low[0]), float(self._low[1]))
        )


def _shift(image: NDArray, down: float, right: float) -> NDArray:
    """Bilinear interpolation of an image moved by a fraction of a pixel, [N + 1, N + 1]; borders repeated."""
    padded = np.pad(image, 1, mode="edge")
    rows = (1 - down) * padded[1:] + down * padded[:-1]
    return (1 - right) * rows[:, 1:] + right * rows[:, :-1]


def _shift_weight(weight: NDArray, down: float, right: float) -> NDArray:
    """Like `_shift`, but 0 where a neighbour with any influence is outside the patch."""
    shifted = _shift(weight, down, right)
    if down:
        shifted[0] = shifted[-1] = 0
    else:
        shifted[-1] = 0
    if right:
        shifted[:, 0] = shifted[:, -1] = 0
    else:
        shifted[:, -1] = 0
    return shifted
