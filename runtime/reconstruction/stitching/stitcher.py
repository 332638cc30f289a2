"""Accumulation of patches on a canvas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
    PlacedPatches,
    TiledCanvas,
    canvas_memory,
)
from ptychonnx.runtime.reconstruction.stitching.patch_store import CONTENT, PatchStore
from ptychonnx.runtime.reconstruction.stitching.stitched_object import (
    Stitched,
    StitchedTiles,
    too_large,
    weighted_mean,
)
from ptychonnx.runtime.reconstruction.stitching.synchronisation import phase_factors
from ptychonnx.runtime.reconstruction.stitching.temporary_files import check_disk_space
from ptychonnx.runtime.scan.forward_model import window_corners

__all__ = ["Stitcher", "Sums", "canvas_layout", "check_whole", "whole_shape"]


@dataclass(frozen=True)
class Sums:
    """Sums over patches in a rectangle of the object."""

    corner: tuple[int, int]  # (row, column) of pixel [0, 0] in the coordinates of the scan
    # complex128 and float64 [h, w], sums of weighted values and of weights.
    values: NDArray[np.complex128]
    weights: NDArray[np.float64]


# Canvases that are not worth tiles, in bytes.
_SMALL = 2**26
# Patches that are shifted, read or added at once: enough to hide the cost of a call, few enough for the caches.
_CHUNK_BYTES = 2**20


class Stitcher:
    """Accumulates patches on a canvas in float64.

    At sub-pixel positions, the patch and its weight are each shifted by the fraction of a pixel; at whole-pixel
    positions nothing is shifted. A fraction costs a patch its first row and column, which lack a neighbour.

    * ``bilinear``: for a twice differentiable object, the error is at most (|f_rr| + |f_cc|) / 8 per squared pixel,
      whatever the weight.
    * ``fourier``: a phase ramp on the modes of the patch and its mirror images, which keeps the detail that bilinear
      interpolation blurs. Exact for patches that are band-limited and even at their borders, so best with a weight
      that vanishes there. Weights are shifted bilinearly, since they must stay positive.

    A single pattern determines the phase of its patch only up to a constant. With `synchronise`, all patches are
    stored, and each is rotated to agree with its neighbours before they are added (see `stitching.synchronisation`).
    The mean phase of the object is kept, and the order of the patches does not matter.

    Patches are shifted and rotated in single precision, in which they arrive; products with the weight and all sums
    are in double precision. A canvas beyond the memory limit is kept in tiles on disk, with a bit-identical result.
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
        sparse: bool = False,
    ) -> None:
        """Create a canvas that contains every window.

        Raises InputError if the placement is unknown, or the canvas exceeds `MAX_CANVAS_PIXELS`. Raises
        EnvironmentFailure if tiles and stored patches do not fit on the disk.

        * `positions`: float64 [n, 2] (row, column), centres of all windows to be added, in pixels.
        * `weight`: float64 [N, N] from `patch_weight`.
        * `placement`: method of sub-pixel shifts.
        * `synchronise`: rotate patches to a common global phase.
        * `memory`: limit for the sums in memory, in bytes; a larger canvas is kept in tiles. None: `canvas_memory()`.
        * `tile`: side of a tile in pixels.
        * `sparse`: keep a large canvas in tiles, also if it fits in memory, where the patches reach less than half of
          them.
        """
        if placement not in get_args(Placement):
            known = ", ".join(get_args(Placement))
            raise InputError(f"placement {placement!r} is unknown, expected one of {known}")
        self._placement = placement
        self._size = weight.shape[0]
        # Only pixels with a weight are added, plus a margin of one pixel for the sub-pixel shift.
        self._support = _support(np.any(weight, axis=1)), _support(np.any(weight, axis=0))
        self._weight = np.ascontiguousarray(weight[self._support], dtype=np.float64)
        low, self._shape = canvas_layout(positions, self._size)
        self._low = np.asarray(low)
        self._memory, self._tile = canvas_memory() if memory is None else memory, tile
        self._sparse = sparse
        self._corners = np.unique(self._place(positions)[0], axis=0)
        self._canvas = self._empty_canvas()
        self._store = PatchStore(self._weight.shape) if synchronise else None
        needed = {}
        if isinstance(self._canvas, TiledCanvas):
            content = f"the canvas of {self._shape[0]} x {self._shape[1]} pixels"
            needed[content] = self._canvas.disk_bytes
        if self._store is not None:
            needed[CONTENT] = self._store.disk_bytes(len(positions))
        check_disk_space(needed)
        # Load or compile the kernel now, so that the time of stitching does not include it.
        empty = np.empty((0, *self._weight.shape), dtype=np.complex64)
        Canvas(1, 1).add(self._placed(empty, *self._place(np.empty((0, 2)))), self._weight)

    def add(self, patches: NDArray[np.complexfloating], positions: NDArray[np.float64]) -> None:
        """Add patches; may be called any number of times, in any order.

        Raises InputError if a patch lies outside the canvas. Raises EnvironmentFailure if the disk is full.

        `patches`: complex [m, N, N]. `positions`: float64 [m, 2] (row, column), centres of the patches in pixels.
        """
        corners, fractions = self._place(positions)
        if len(corners) and (corners.min() < 0 or (corners + self._weight.shape > self._shape).any()):
            raise InputError("a patch lies outside the canvas: its position is not among those announced")
        patches = np.ascontiguousarray(patches, dtype=np.complex64)
        for chunk in self._chunks(len(patches)):
            prepared = self._prepared(patches[chunk], fractions[chunk])
            if self._store is None:
                self._canvas.add(self._placed(prepared, corners[chunk], fractions[chunk]), self._weight)
            else:
                self._store.append(prepared, corners[chunk], fractions[chunk])

    def sums(self) -> Iterator[Sums]:
        """Yield the sums so far; there are none if patches are synchronised, since they are added last."""
        for row, column, values, weights in self._canvas.blocks():
            yield Sums((int(self._low[0]) + row, int(self._low[1]) + column), values, weights)

    def add_sums(self, sums: Iterable[Sums]) -> None:
        """Add the sums of a stitcher of the same kind whose patches are among those announced.

        Raises InputError if they lie outside the canvas.
        """
        for part in sums:
            corner = np.subtract(part.corner, self._low).astype(np.intp)
            if (corner < 0).any() or (corner + part.weights.shape > self._shape).any():
                raise InputError("sums lie outside the canvas: their place is not among those announced")
            row, column = corner.tolist()
            self._canvas.add_sums(row, column, part.values, part.weights)

    def result(self) -> Stitched | StitchedTiles:
        """Weighted mean of the patches so far. Unless patches are synchronised, read its tiles before adding more.

        Raises EnvironmentFailure if stored patches cannot be read, or the disk is full.
        """
        if self._store is not None:
            self._canvas = self._empty_canvas()
            self._sum_synchronised(self._store)
        origin = float(self._low[0]), float(self._low[1])
        if isinstance(self._canvas, TiledCanvas):
            return StitchedTiles(self._canvas, origin)
        ((_, _, values, weights),) = self._canvas.blocks()
        return Stitched(weighted_mean(values, weights), weights.copy(), origin)

    def _empty_canvas(self) -> Canvas | TiledCanvas:
        rows, columns = self._shape
        whole = rows * columns * BYTES_PER_PIXEL
        if whole <= self._memory and not (self._sparse and whole > _SMALL):
            return Canvas(rows, columns)
        tiles = TiledCanvas(rows, columns, self._memory, self._corners, self._weight.shape, self._tile)
        return tiles if whole > self._memory or 2 * tiles.all_bytes < whole else Canvas(rows, columns)

    def _chunks(self, count: int) -> Iterator[slice]:
        """Slices of `count` patches that are processed at once."""
        step = max(1, _CHUNK_BYTES // (8 * self._size**2))
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def _place(self, positions: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Corners int [m, 2] on the canvas of the weighted part of each patch, and fractions float64 [m, 2]."""
        exact = window_corners(positions, self._size) - self._low
        whole = np.floor(exact)
        return whole.astype(np.intp) + [axis.start for axis in self._support], exact - whole

    def _prepared(
        self, patches: NDArray[np.complex64], fractions: NDArray[np.float64]
    ) -> NDArray[np.complex64]:
        """Weighted part [m, h, w] of patches [m, N, N], shifted if the placement is ``fourier``."""
        if self._placement == "fourier" and fractions.any():
            # numba is slow to import
            from ptychonnx.runtime.reconstruction.stitching.fourier_shift import shift

            shifted = np.empty_like(patches)
            shift(patches.view(np.float32), fractions, shifted.view(np.float32))
            patches = shifted
        return np.ascontiguousarray(patches[:, *self._support])

    def _placed(
        self, prepared: NDArray[np.complex64], corners: NDArray[np.intp], fractions: NDArray[np.float64]
    ) -> PlacedPatches:
        return PlacedPatches(prepared, corners, fractions, interpolate=self._placement == "bilinear")

    def _sum_synchronised(self, store: PatchStore) -> None:
        """Add all stored patches, each rotated by its phase factor."""
        corners, fractions = store.places()
        height, width = self._weight.shape

        def weighted(index: NDArray[np.intp]) -> NDArray[np.complex128]:
            # Stacked on one canvas, without overlaps.
            stack = Canvas(len(index) * height, width)
            stacked = np.arange(len(index))[:, None] * [height, 0]
            stack.add(self._placed(store.read(index), stacked, fractions[index]), self._weight)
            return stack.values.reshape(-1, height, width)

        factors = phase_factors(corners, fractions, store.order(), (height, width), weighted)
        for chunk in self._chunks(len(store)):
            patches = store.read(np.arange(chunk.start, chunk.stop))
            patches *= factors.astype(np.complex64)[chunk, None, None]
            self._canvas.add(self._placed(patches, corners[chunk], fractions[chunk]), self._weight)


def check_whole(positions: NDArray[np.float64], size: int, memory: int | None, consumer: str) -> None:
    """Refuse a scan whose canvas would be kept in tiles, before any work is done.

    Raises InputError if the sums exceed the memory limit, or the canvas exceeds `MAX_CANVAS_PIXELS`.

    * `positions`: float64 [n, 2], centres of all windows in pixels.
    * `size`: side N of a window in pixels.
    * `memory`: as for `Stitcher`.
    * `consumer`: beginning of the error message: which output takes only whole objects.
    """
    if not all(whole_shape(positions, size, memory)):
        raise InputError(too_large(canvas_layout(positions, size)[1], consumer))


def whole_shape(positions: NDArray[np.float64], size: int, memory: int | None = None) -> tuple[int, int]:
    """Rows and columns of the object for windows of N = `size` pixels centred at positions [n, 2].

    (0, 0) if the canvas would be kept in tiles, so that the size of the object is not known before.

    Raises InputError if the canvas exceeds `MAX_CANVAS_PIXELS`.
    """
    _, shape = canvas_layout(positions, size)
    limit = canvas_memory() if memory is None else memory
    return shape if shape[0] * shape[1] * BYTES_PER_PIXEL <= limit else (0, 0)


def canvas_layout(positions: NDArray[np.float64], size: int) -> tuple[tuple[float, float], tuple[int, int]]:
    """(row, column) of the canvas pixel [0, 0] in the scan's pixels, and the (rows, columns) of the canvas.

    Raises InputError if the canvas exceeds `MAX_CANVAS_PIXELS`.

    `positions`: float64 [n, 2], centres of the windows. `size`: N, side of a window.
    """
    corners = window_corners(positions, size)
    low = np.floor(corners.min(axis=0))
    rows, columns = (np.floor(corners.max(axis=0)) - low + size + 1).tolist()
    if rows * columns > MAX_CANVAS_PIXELS:
        raise InputError(
            f"the positions span a canvas of {rows:.0f} x {columns:.0f} pixels, expected at most "
            f"{MAX_CANVAS_PIXELS} pixels in all: are the positions in pixels?"
        )
    return (float(low[0]), float(low[1])), (int(rows), int(columns))


def _support(weighted: NDArray[np.bool_]) -> slice:
    """Range of an axis from one pixel before the first weighted one to one after the last."""
    pixels = np.flatnonzero(weighted)
    return slice(max(int(pixels[0]) - 1, 0), min(int(pixels[-1]) + 2, len(weighted)))
