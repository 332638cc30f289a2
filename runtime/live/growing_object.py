"""The object while it grows: a canvas that is enlarged when a patch falls outside of it."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.reconstruction.stitching.canvas import MAX_CANVAS_PIXELS, Canvas, PlacedPatches
from ptychonnx.runtime.reconstruction.stitching.stitched_object import weighted_mean
from ptychonnx.runtime.scan.forward_model import window_corners

__all__ = ["TILE", "GrowingObject"]

# Side of a tile, in pixels of the object.
TILE = 64

# The canvas grows by at least this fraction of its side, so that it is copied rarely.
_MARGIN = 0.25
# A preview of more pixels than this would take the memory that the network needs.
_LARGEST_PREVIEW = min(MAX_CANVAS_PIXELS, 2**26)
# Whole pixels up to here, and their products, are exact.
_FARTHEST = 2**30


class GrowingObject:
    """Weighted mean of the patches so far, for people to look at.

    The object that is written is stitched again at the end, from the positions as they are then known. Where the
    contract asks for synchronisation, each patch is rotated to agree with the object so far: a greedy substitute for
    `stitching.synchronisation`, which needs all patches.

    It is seen in tiles of `TILE` x `TILE` pixels; tile (0, 0) begins at the origin of the positions, so that tiles stay
    where they are when the canvas is enlarged.

    `version`: increases with every change.
    """

    def __init__(self, weight: NDArray[np.float64], *, synchronise: bool) -> None:
        """Create an empty object for patches with a weight float64 [N, N]."""
        self._weight, self._synchronise = np.ascontiguousarray(weight, np.float64), synchronise
        self._size = weight.shape[0]
        self._canvas = Canvas(0, 0)
        self._low = np.zeros(2, np.intp)
        self._centres: list[NDArray[np.float64]] = []
        # The version in which each tile (row, column) changed last.
        self._tiles: dict[tuple[int, int], int] = {}
        self.version = 0

    def add(self, patches: NDArray[np.complex64], positions: NDArray[np.float64]) -> None:
        """Add patches complex64 [m, N, N] centred at positions float64 [m, 2], in pixels.

        Raises InputError if the positions span too large a canvas.
        """
        if not len(patches):
            return
        exact = window_corners(positions, self._size)
        if not (np.abs(exact) < _FARTHEST).all():
            raise InputError(
                f"positions lie up to {np.abs(exact).max():.3g} pixels from the origin, expected at most {_FARTHEST}: "
                "are unit and pixel size right?"
            )
        whole = np.floor(exact).astype(np.intp)
        self._enlarge(whole.min(axis=0), whole.max(axis=0) + self._size)
        corners = whole - self._low
        # A patch is rotated to all before it, also to those that came with it.
        count = 1 if self._synchronise else len(patches)
        for start in range(0, len(patches), count):
            part = slice(start, start + count)
            chosen = patches[part]
            if self._synchronise:
                chosen = chosen * self._rotation(chosen[0], corners[start])
            placed = PlacedPatches(
                np.ascontiguousarray(chosen, np.complex64),
                corners[part],
                (exact - whole)[part],
                interpolate=True,
            )
            self._canvas.add(placed, self._weight)
        self._centres.append(np.asarray(positions))
        self.version += 1
        corners, ends = (whole // TILE).tolist(), ((whole + self._size - 1) // TILE).tolist()
        for (top, left), (bottom, right) in zip(corners, ends, strict=True):
            tiles = product(range(top, bottom + 1), range(left, right + 1))
            self._tiles.update(dict.fromkeys(tiles, self.version))

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of the canvas, which is somewhat larger than what patches have reached."""
        return self._canvas.weights.shape

    def centres(self) -> NDArray[np.float64]:
        """Centres [m, 2] of the patches so far, in pixels, in order of their arrival."""
        if not self._centres:
            return np.empty((0, 2))
        self._centres = [np.concatenate(self._centres)]
        return self._centres[0]

    def changed(self, version: int) -> list[tuple[int, int]]:
        """Row and column of the tiles that have changed since a version; -1: all that patches have reached."""
        return [tile for tile, at in self._tiles.items() if at > version]

    def tile(self, row: int, column: int, step: int = 1) -> NDArray[np.complex64]:
        """Every `step`-th pixel of `step` x `step` tiles, [TILE, TILE]; NaN where no patch reaches.

        `row` and `column` count tiles of that size.
        """
        pixels = np.full((TILE, TILE), np.nan, np.complex64)
        first = np.array([row, column]) * TILE * step - self._low
        # The first of the pixels that lie on the canvas, and those behind the last of them.
        start = np.maximum(0, -(first // step))
        stop = np.minimum(TILE, -((first - self._canvas.weights.shape) // step))
        if (start < stop).all():
            low, high = first + start * step, first + (stop - 1) * step + 1
            part = slice(low[0], high[0], step), slice(low[1], high[1], step)
            weights = self._canvas.weights[part]
            mean = weighted_mean(self._canvas.values[part], weights)
            pixels[start[0] : stop[0], start[1] : stop[1]] = np.where(weights > 0, mean, np.nan)
        return pixels

    def window(self, place: NDArray[np.float64]) -> NDArray[np.complex64]:
        """The object [N, N] around a position that has a patch, to the nearest pixel."""
        corner = np.floor(window_corners(place[None], self._size)[0]).astype(np.intp) - self._low
        part = tuple(slice(start, start + self._size) for start in corner.tolist())
        return weighted_mean(self._canvas.values[part], self._canvas.weights[part])

    def _enlarge(self, low: NDArray[np.intp], high: NDArray[np.intp]) -> None:
        shape = np.array(self._canvas.weights.shape)
        if shape.any() and (low >= self._low).all() and (high <= self._low + shape).all():
            return
        if shape.any():
            margin, end = (_MARGIN * shape).astype(np.intp), self._low + shape
            low = np.where(low < self._low, low - margin, self._low)
            high = np.where(high > end, high + margin, end)
        rows, columns = (high - low).tolist()
        if rows * columns > _LARGEST_PREVIEW:
            raise InputError(
                f"the positions span a canvas of {rows} x {columns} pixels, expected at most {_LARGEST_PREVIEW} pixels "
                "in all: are unit and pixel size right?"
            )
        canvas = Canvas(rows, columns)
        if shape.any():
            (top, left), (height, width) = (self._low - low).tolist(), shape.tolist()
            canvas.values[top : top + height, left : left + width] = self._canvas.values
            canvas.weights[top : top + height, left : left + width] = self._canvas.weights
        self._canvas, self._low = canvas, low

    def _rotation(self, patch: NDArray[np.complex64], corner: NDArray[np.intp]) -> np.complex64:
        """Phase factor that rotates a patch to the object under it; 1 where there is none."""
        row, column = corner.tolist()
        under = self._canvas.values[row : row + self._size, column : column + self._size]
        overlap = complex(np.vdot(self._weight * patch, under))
        known = abs(overlap) > 0 and np.isfinite(overlap)
        return np.complex64(overlap / abs(overlap) if known else 1)
