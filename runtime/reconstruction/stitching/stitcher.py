"""Adding patches to a canvas, many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Placement
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.reconstruction.stitching.canvas import (
    BYTES_PER_PIXEL,
    MAX_CANVAS_PIXELS,
    TILE,
    Canvas,
    Placed,
    Sums,
    TiledCanvas,
    canvas_memory,
)
from ptychonnx.runtime.reconstruction.stitching.patch_store import KEPT, KeptPatches
from ptychonnx.runtime.reconstruction.stitching.stitched_object import (
    Stitched,
    StitchedTiles,
    merged,
    too_large,
)
from ptychonnx.runtime.reconstruction.stitching.synchronisation import turns
from ptychonnx.runtime.reconstruction.stitching.temporary_arrays import check_disk
from ptychonnx.runtime.scan.forward_model import window_corners

__all__ = ["Stitcher", "check_whole"]

# Patches that are moved, read or added at once: many enough for one call, few enough for a processor's caches.
_PREPARED_BYTES = 2**20


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

    A single pattern fixes the phase of its patch only up to a constant. With `synchronise`, all patches are kept, and
    added up for each result, after each was turned by the phase that makes it agree with those it overlaps with, see
    `stitching.synchronisation`. The phase of the whole stays; the order of the patches does not matter.

    Patches are moved and turned in single precision, which they come in; products with the weight and all sums are
    double.
    A canvas that takes more memory than allowed is kept in tiles on disk, with the same result bit by bit.
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        weight: NDArray[np.float64],
        placement: Placement = "bilinear",
        *,
        synchronise: bool = False,
        memory: int | None = None,
        tile: int = TILE,
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
            Bring the global phases of patches together where they overlap.
        memory
            Bytes that the sums may take; those of a larger canvas are kept in tiles. `canvas_memory()` if None.
        tile
            Side of a tile in pixels.

        Raises
        ------
        InputError
            If the placement is unknown, the canvas would be larger than `MAX_CANVAS_PIXELS`, or its tiles and the
            patches that are kept do not fit on the disk.
        """
        if placement not in get_args(Placement):
            known = ", ".join(get_args(Placement))
            raise InputError(f"placement {placement!r} is unknown, expected one of {known}")
        self._placement = placement
        self._size = weight.shape[0]
        # Where the weight is 0 nothing needs to be added; one pixel more takes what a fraction moves there.
        self._support = _support(np.any(weight, axis=1)), _support(np.any(weight, axis=0))
        self._weight = np.ascontiguousarray(weight[self._support], dtype=np.float64)
        self._low, self._shape = _layout(positions, self._size)
        self._memory, self._tile = canvas_memory() if memory is None else memory, tile
        self._canvas = self._empty_canvas()
        self._kept = KeptPatches(self._weight.shape) if synchronise else None
        needed = {}
        if isinstance(self._canvas, TiledCanvas):
            name = f"the canvas of {self._shape[0]} x {self._shape[1]} pixels"
            needed[name] = self._canvas.needed_disk(self._place(positions)[0], self._weight.shape)
        if self._kept is not None:
            needed[KEPT] = self._kept.needed_disk(len(positions))
        check_disk(needed)
        # The loop is loaded, or compiled, before the first patch comes: the time for that is none of stitching.
        nothing = np.empty((0, *self._weight.shape), dtype=np.complex64)
        Canvas(1, 1).add(self._placed(nothing, *self._place(np.empty((0, 2)))), self._weight)

    def add(self, patches: NDArray[np.complexfloating], positions: NDArray[np.float64]) -> None:
        """Add patches [m, N, N] centred at positions [m, 2]; any number of times, in any order.

        Raises
        ------
        InputError
            If a patch lies outside the canvas, or a tile cannot be stored.
        """
        pixels, fractions = self._place(positions)
        if len(pixels) and (pixels.min() < 0 or (pixels + self._weight.shape > self._shape).any()):
            raise InputError("a patch lies outside the canvas: its position is not among those laid out")
        patches = np.ascontiguousarray(patches, dtype=np.complex64)
        for some in self._portions(len(patches)):
            prepared = self._prepared(patches[some], fractions[some])
            if self._kept is None:
                self._canvas.add(self._placed(prepared, pixels[some], fractions[some]), self._weight)
            else:
                self._kept.append(prepared, pixels[some], fractions[some])

    def result(self) -> Stitched | StitchedTiles:
        """The weighted mean so far; unless patches are synchronised, tiles are to be read before more are added.

        Raises
        ------
        InputError
            If patches that were kept cannot be read back, or a tile cannot be stored.
        """
        if self._kept is not None:
            self._canvas = self._empty_canvas()
            self._sum_synchronised(self._kept)
        origin = float(self._low[0]), float(self._low[1])
        if isinstance(self._canvas, TiledCanvas):
            return StitchedTiles(self._canvas, origin)
        ((_, _, values, weights),) = self._canvas.blocks()
        return Stitched(merged(values, weights), weights.copy(), origin)

    def _empty_canvas(self) -> Sums:
        """In memory if it may take so much."""
        rows, columns = self._shape
        if rows * columns * BYTES_PER_PIXEL <= self._memory:
            return Canvas(rows, columns)
        return TiledCanvas(rows, columns, self._memory, self._tile)

    def _portions(self, count: int) -> Iterator[slice]:
        """As many of so many patches as are prepared at once."""
        step = max(1, _PREPARED_BYTES // (8 * self._size**2))
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def _place(self, positions: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """First pixel [m, 2] on the canvas of the part of each patch that has a weight, and its fraction [m, 2]."""
        corners = window_corners(positions, self._size) - self._low
        whole = np.floor(corners)
        return whole.astype(np.intp) + [axis.start for axis in self._support], corners - whole

    def _prepared(
        self, patches: NDArray[np.complex64], fractions: NDArray[np.float64]
    ) -> NDArray[np.complex64]:
        """What the sums or the file need of patches [m, N, N]: [m, h, w] with any weight, in the Fourier case moved."""
        if self._placement == "fourier" and fractions.any():
            from ptychonnx.runtime.reconstruction.stitching.fourier_shift import (
                shift,  # numba takes long to load
            )

            moved = np.empty_like(patches)
            shift(patches.view(np.float32), fractions, moved.view(np.float32))
            patches = moved
        return np.ascontiguousarray(patches[:, *self._support])

    def _placed(
        self, prepared: NDArray[np.complex64], corners: NDArray[np.intp], fractions: NDArray[np.float64]
    ) -> Placed:
        """Prepared patches [m, h, w] at corners [m, 2]."""
        return Placed(prepared, corners, fractions, interpolate=self._placement == "bilinear")

    def _sum_synchronised(self, kept: KeptPatches) -> None:
        """Add all patches that were kept, each turned by its phase."""
        pixels, fractions = kept.places()
        height, width = self._weight.shape

        def weighted(index: NDArray[np.intp]) -> NDArray[np.complex128]:
            # Below each other, so that they do not overlap.
            one_each = Canvas(len(index) * height, width)
            corners = np.arange(len(index))[:, None] * [height, 0]
            one_each.add(self._placed(kept.read(index), corners, fractions[index]), self._weight)
            return one_each.values.reshape(-1, height, width)

        factors = turns(pixels, fractions, kept.order(), self._weight.shape, weighted).astype(np.complex64)
        for some in self._portions(len(kept)):
            turned = kept.read(np.arange(some.start, some.stop)) * factors[some, None, None]
            self._canvas.add(self._placed(turned, pixels[some], fractions[some]), self._weight)


def check_whole(positions: NDArray[np.float64], size: int, memory: int | None, wanted: str) -> None:
    """Refuse a scan whose canvas would be kept in tiles, before any work is done.

    Parameters
    ----------
    positions, size
        Of all windows, in pixels.
    memory
        As for `Stitcher`.
    wanted
        What cannot take tiles, as the line of the error begins.

    Raises
    ------
    InputError
        If the sums would take more memory, or the canvas is larger than `MAX_CANVAS_PIXELS`.
    """
    _, shape = _layout(positions, size)
    if shape[0] * shape[1] * BYTES_PER_PIXEL > (canvas_memory() if memory is None else memory):
        raise InputError(too_large(shape, wanted))


def _layout(positions: NDArray[np.float64], size: int) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Corner [2] of the canvas in pixels of the scan, and its rows and columns."""
    corners = window_corners(positions, size)
    low = np.floor(corners.min(axis=0))
    rows, columns = (np.floor(corners.max(axis=0)) - low + size + 1).tolist()
    if rows * columns > MAX_CANVAS_PIXELS:
        raise InputError(
            f"the positions span a canvas of {rows:.0f} x {columns:.0f} pixels, expected at most "
            f"{MAX_CANVAS_PIXELS} pixels in all: are the positions in pixels?"
        )
    return low, (int(rows), int(columns))


def _support(weighted: NDArray[np.bool_]) -> slice:
    """Pixels of an axis from one before the first that has a weight to one after the last."""
    found = np.flatnonzero(weighted)
    return slice(max(int(found[0]) - 1, 0), min(int(found[-1]) + 2, len(weighted)))
