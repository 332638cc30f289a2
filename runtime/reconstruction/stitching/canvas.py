"""The sums of a stitcher: weighted values and weights in float64, in memory or in tiles on disk."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching.temporary_arrays import holding

__all__ = [
    "BYTES_PER_PIXEL",
    "MAX_CANVAS_PIXELS",
    "TILE",
    "Canvas",
    "Placed",
    "Sums",
    "TiledCanvas",
    "canvas_memory",
]

# 131072 x 131072: no microscope scans that far, so the positions are surely not in pixels.
MAX_CANVAS_PIXELS = 2**34
# A complex and a real sum.
BYTES_PER_PIXEL = 24
# Side of a tile in pixels: larger than most patches, so that most touch one or two of them.
TILE = 256
_HELD = "the tiles of the canvas"


def canvas_memory() -> int:
    """Bytes of sums that are held in memory unless told otherwise: a quarter of what the machine has.

    The object and its weight, made from the sums at the end, take two thirds as much again.
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 2**31


@dataclass(frozen=True)
class Placed:
    """Patches and where they lie on a canvas.

    Attributes
    ----------
    patches
        complex64 [m, h, w], contiguous.
    corners
        [m, 2] (row, column), the pixels of the canvas under their first ones.
    fractions
        float64 [m, 2] in [0, 1), how much further down and to the right the patches lie.
    interpolate
        Whether they are moved by the fractions when they are added, or have been before.
    """

    patches: NDArray[np.complex64]
    corners: NDArray[np.intp]
    fractions: NDArray[np.float64]
    interpolate: bool

    def seen_from(self, origin: NDArray[np.intp], some: NDArray[np.intp]) -> Placed:
        """Some of the patches, on a canvas that begins at another pixel."""
        return replace(
            self,
            patches=self.patches[some],
            corners=self.corners[some] - origin,
            fractions=self.fractions[some],
        )


class Sums(Protocol):
    """What a stitcher adds to: `Canvas` or `TiledCanvas`."""

    def add(self, placed: Placed, weight: NDArray[np.float64]) -> None:
        """Add patches with a weight [h, w], one after the other."""

    def blocks(self) -> Iterator[tuple[int, int, NDArray[np.complex128], NDArray[np.float64]]]:
        """(first row, first column, weighted values, weights) of all parts that may hold something, each once."""


class Canvas:
    """Sums in memory.

    Attributes
    ----------
    cells
        float64 [3 * rows * columns], first all weighted values, then all weights: stored and fetched at once.
    values, weights
        complex128 and float64 [rows, columns], views of `cells`.
    """

    def __init__(self, rows: int, columns: int) -> None:
        pixels = rows * columns
        self.cells = np.zeros(3 * pixels)
        self.values = self.cells[: 2 * pixels].view(np.complex128).reshape(rows, columns)
        self.weights = self.cells[2 * pixels :].reshape(rows, columns)

    def add(self, placed: Placed, weight: NDArray[np.float64]) -> None:
        """Add patches with a weight [h, w], one after the other; what lies outside is left out."""
        from ptychonnx.runtime.reconstruction.stitching.kernel import add_patches  # numba takes long to load

        add_patches(
            self.values.view(np.float64),
            self.weights,
            placed.patches.view(np.float32),
            weight,
            placed.corners,
            placed.fractions,
            placed.interpolate,
        )

    def blocks(self) -> Iterator[tuple[int, int, NDArray[np.complex128], NDArray[np.float64]]]:
        """All of it."""
        yield 0, 0, self.values, self.weights


class TiledCanvas:
    """Sums in square tiles, of which those used last are in memory and the others in a temporary file.

    A tile that no patch reaches takes no space anywhere. The file has no name and goes with the object, whatever
    ends the process. Every pixel sees the same additions in the same order as on a `Canvas`.
    """

    def __init__(self, rows: int, columns: int, memory: int, side: int = TILE) -> None:
        """Lay out a canvas.

        Parameters
        ----------
        memory
            Bytes of tiles to keep in memory; one tile at least.
        side
            Side of a tile in pixels.

        Raises
        ------
        InputError
            If there is no folder for temporary files.
        """
        self._shape = rows, columns
        self._side = side
        self._kept = max(1, memory // (BYTES_PER_PIXEL * side**2))
        self._tiles: OrderedDict[tuple[int, int], Canvas] = OrderedDict()
        self._changed: set[tuple[int, int]] = set()
        self._slots: dict[tuple[int, int], int] = {}
        with holding(_HELD):
            self._file = tempfile.TemporaryFile(prefix="ptychonnx-canvas-")  # noqa: SIM115 - lives as long as this

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._shape

    def needed_disk(self, pixels: NDArray[np.intp], shape: tuple[int, ...]) -> int:
        """Bytes of the tiles under regions of one shape, with first pixels [n, 2]."""
        return len(self._under(pixels, pixels + shape)) * BYTES_PER_PIXEL * self._side**2

    def add(self, placed: Placed, weight: NDArray[np.float64]) -> None:
        """Add patches with a weight [h, w], tile by tile."""
        low, high = placed.corners, placed.corners + weight.shape
        for key in self._under(low, high):
            origin = np.array(key) * self._side
            reaching = np.flatnonzero(((low < origin + self._side) & (high > origin)).all(axis=1))
            self._tile(key).add(placed.seen_from(origin, reaching), weight)
            self._changed.add(key)

    def blocks(self) -> Iterator[tuple[int, int, NDArray[np.complex128], NDArray[np.float64]]]:
        """The tiles that a patch reached, row by row."""
        for key in sorted({*self._tiles, *self._slots}):
            row, column = key[0] * self._side, key[1] * self._side
            rows, columns = self._shape[0] - row, self._shape[1] - column
            tile = self._tile(key)
            yield row, column, tile.values[:rows, :columns], tile.weights[:rows, :columns]

    def _under(self, low: NDArray[np.intp], high: NDArray[np.intp]) -> list[tuple[int, int]]:
        """The tiles under regions from `low` to `high` [m, 2], row by row."""
        ends = np.unique(np.hstack([low // self._side, (high - 1) // self._side]), axis=0).tolist()
        return sorted(
            {
                (row, column)
                for top, left, bottom, right in ends
                for row in range(top, bottom + 1)
                for column in range(left, right + 1)
            }
        )

    def _tile(self, key: tuple[int, int]) -> Canvas:
        """One tile, in memory until others push it out."""
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        with holding(_HELD):
            tile = self._room()
            if key in self._slots:
                self._file.seek(self._slots[key] * tile.cells.nbytes)
                self._file.readinto(tile.cells.data)
            else:
                tile.cells.fill(0)
        self._tiles[key] = tile
        return tile

    def _room(self) -> Canvas:
        """A tile to fill: a new one, or the one used longest ago, after it was stored."""
        if len(self._tiles) < self._kept:
            return Canvas(self._side, self._side)
        key, tile = self._tiles.popitem(last=False)
        if key in self._changed:
            slot = self._slots.setdefault(key, len(self._slots))
            self._file.seek(slot * tile.cells.nbytes)
            self._file.write(tile.cells.data)
            self._changed.remove(key)
        return tile
