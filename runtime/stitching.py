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

from runtime.contract import Placement, Weighting
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

    At a sub-pixel position a patch and its weight are moved by the fraction onto the canvas, each by itself; at
    whole-pixel positions nothing is moved. A fraction costs a patch its first row and column, where not all
    four neighbours are inside.

    * ``bilinear``: the error of a patch of a twice differentiable object is at most (|f_rr| + |f_cc|) / 8 per
      squared pixel, whatever the weight.
    * ``fourier``: by a phase ramp on the modes of the patch and its mirror images, which keeps what bilinear
      interpolation blurs. Exact for what is band-limited and even at the borders, so best where the weight
      fades there. Weights are moved bilinearly: they must stay positive.

    A single pattern fixes the phase of its patch only up to a constant. With `synchronise`, each patch is turned by
    the one phase that brings it closest, by weight, to what lies under it already; the first one decides, and the
    order of the patches matters a little.
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        weight: NDArray[np.float64],
        placement: Placement = "bilinear",
        *,
        synchronise: bool = False,
    ) -> None:
        """Lay out a canvas that holds every window.

        Parameters
        ----------
        positions
            float64 [n, 2] (row, column), centres of all windows to come, in pixels.
        weight
            [N, N] from `patch_weight`.
        placement
            How patches come to lie between pixels.
        synchronise
            Bring the global phase of each patch to that of its neighbours.

        Raises
        ------
        InputError
            If the placement is unknown, or the canvas would be larger than `MAX_CANVAS_PIXELS`.
        """
        if placement not in get_args(Placement):
            known = ", ".join(get_args(Placement))
            raise InputError(f"placement {placement!r} is unknown, expected one of {known}")
        self._move = _shift if placement == "bilinear" else _shift_modes
        self._synchronise = synchronise
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
                values, weight = self._move(values, down, right), _shift_weight(weight, down, right)
            height, width = weight.shape
            region = (slice(row, row + height), slice(column, column + width))
            if self._synchronise:
                values = values * self._phase_to(region, values, weight)
            self._sum[region] += weight * values
            self._total[region] += weight

    def _phase_to(self, region: tuple[slice, slice], values: NDArray, weight: NDArray) -> complex:
        """The unit number that brings a patch closest to the mean under it; 1 where nothing lies yet."""
        total = self._total[region]
        known = np.divide(self._sum[region], total, out=np.zeros_like(self._sum[region]), where=total > 0)
        overlap = np.vdot(values, np.minimum(weight, total) * known)
        return complex(overlap / abs(overlap)) if abs(overlap) > 0 else 1.0

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


def _shift_modes(image: NDArray, down: float, right: float) -> NDArray:
    """An image moved by a fraction of a pixel through its Fourier modes, [N + 1, N + 1].

    The image is continued by its mirror images, so that it has no edge.
    """
    size = len(image)
    modes = np.fft.fft2(np.pad(image, ((0, size), (0, size)), mode="symmetric"))
    frequency = np.fft.fftfreq(2 * size)
    ramp = np.exp(-2j * np.pi * (frequency[:, None] * down + frequency * right))
    return np.fft.ifft2(modes * ramp)[: size + 1, : size + 1]


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
