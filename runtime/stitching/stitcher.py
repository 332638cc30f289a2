"""Adding patches to a canvas, many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from runtime.contract import Placement
from runtime.errors import InputError
from runtime.physics import window_corners
from runtime.stitching.canvas import (
    BYTES_PER_PIXEL,
    MAX_CANVAS_PIXELS,
    TILE,
    Canvas,
    Sums,
    TiledCanvas,
    canvas_memory,
)
from runtime.stitching.kept import KEPT, KeptPatches
from runtime.stitching.scratch import check_disk
from runtime.stitching.stitched import Stitched, StitchedTiles, merged, too_large
from runtime.stitching.subpixel import bilinear, fourier, shifted_weights, weight_basis
from runtime.stitching.synchronisation import turns

__all__ = ["Stitcher", "check_whole"]

# Weighted patches that are prepared at once: they stay in a processor's own cache until they are added.
_PREPARED_BYTES = 2**19


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
    `runtime.stitching.synchronisation`. The phase of the whole stays; the order of the patches does not matter.

    Patches are moved in single precision, which they come in; products with the weight and all sums are double.
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
        self._weight_of_parts = np.repeat(self._weight, 2, axis=1)
        self._basis = weight_basis(self._weight)
        height, width = self._weight.shape
        self._prepared = np.empty(
            (max(1, _PREPARED_BYTES // (16 * height * width)), height, width), dtype=np.complex128
        )
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
            moved = self._moved(patches[some], fractions[some])
            if self._kept is not None:
                self._kept.append(moved, pixels[some], fractions[some])
            else:
                self._sum(*self._weighted(moved, fractions[some]), pixels[some])

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
        step = len(self._prepared)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def _place(self, positions: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """First pixel [m, 2] on the canvas of the part of each patch that has a weight, and its fraction [m, 2]."""
        corners = window_corners(positions, self._size) - self._low
        whole = np.floor(corners)
        return whole.astype(np.intp) + [axis.start for axis in self._support], corners - whole

    def _moved(self, patches: NDArray[np.complex64], fractions: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Patches [m, h, w] moved by their fractions, where there is any weight."""
        inside = patches[:, *self._support]
        if not fractions.any():
            return inside
        if self._placement == "fourier":
            return fourier(patches, fractions, self._support)
        return bilinear(np.ascontiguousarray(inside), fractions)

    def _weighted(
        self, moved: NDArray[np.complex64], fractions: NDArray[np.float64]
    ) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
        """Weighted values and weights [m, h, w] of patches that were moved by their fractions."""
        products = self._prepared[: len(moved)]
        # Real and imaginary parts side by side: they are converted and multiplied faster than complex numbers.
        parts = products.view(np.float64)
        parts[...] = moved.view(np.float32)
        if not fractions.any():
            np.multiply(parts, self._weight_of_parts, out=parts)
            return products, np.broadcast_to(self._weight, products.shape)
        weights = shifted_weights(self._basis, self._weight.shape, fractions)
        np.multiply(products, weights, out=products)
        return products, weights

    def _sum(
        self, products: NDArray[np.complex128], weights: NDArray[np.float64], pixels: NDArray[np.intp]
    ) -> None:
        """Add weighted values and weights to the canvas."""
        for product, weight, (row, column) in zip(products, weights, pixels.tolist(), strict=True):
            self._canvas.add(row, column, product, weight)

    def _sum_synchronised(self, kept: KeptPatches) -> None:
        """Add all patches that were kept, each turned by its phase."""
        pixels, fractions = kept.places()

        def weighted(index: NDArray[np.intp]) -> NDArray[np.complex128]:
            found = np.empty((len(index), *self._weight.shape), dtype=np.complex128)
            for some in self._portions(len(index)):
                found[some] = self._weighted(kept.read(index[some]), fractions[index[some]])[0]
            return found

        factors = turns(pixels, fractions, kept.order(), self._weight.shape, weighted)
        for some in self._portions(len(kept)):
            moved = kept.read(np.arange(some.start, some.stop))
            products, weights = self._weighted(moved, fractions[some])
            np.multiply(products, factors[some, None, None], out=products)
            self._sum(products, weights, pixels[some])


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
