"""The sums of a stitcher, weighted values and weights in double precision, in memory or in tiles on disk."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching.temporary_files import disk_errors

__all__ = [
    "BYTES_PER_PIXEL",
    "MAX_CANVAS_PIXELS",
    "TILE",
    "Canvas",
    "PlacedPatches",
    "TiledCanvas",
    "canvas_memory",
]

# 131072 x 131072 pixels: beyond any microscope, so the positions cannot be in pixels.
MAX_CANVAS_PIXELS = 2**34
# One complex and one real sum.
BYTES_PER_PIXEL = 24
# Side of a tile in pixels: larger than most patches, so that most of them touch one or two tiles.
TILE = 256
_CONTENT = "the tiles of the canvas"


def canvas_memory() -> int:
    """Default limit for sums in memory, in bytes: a quarter of the machine's memory.

    The object and its weight, computed from the sums at the end, take another two thirds of it.
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 2**31


@dataclass(frozen=True)
class PlacedPatches:
    """Patches with their places on a canvas.

    Attributes
    ----------
    patches : complex64 [m, h, w]
        Contiguous.
    corners : int [m, 2]
        (row, column) of the canvas pixel under the first pixel of each patch.
    fractions : float64 [m, 2]
        Additional shift down and to the right, in [0, 1) pixels.
    interpolate : bool
        Whether patches are shifted by the fractions when they are added; otherwise they have been shifted before.
    """

    patches: NDArray[np.complex64]
    corners: NDArray[np.intp]
    fractions: NDArray[np.float64]
    interpolate: bool

    def relative_to(self, origin: NDArray[np.intp], index: NDArray[np.intp]) -> PlacedPatches:
        """Select patches by their indices, with corners relative to another first pixel of the canvas."""
        return replace(
            self,
            patches=self.patches[index],
            corners=self.corners[index] - origin,
            fractions=self.fractions[index],
        )


class Canvas:
    """Sums in memory.

    Attributes
    ----------
    cells : float64 [3 * rows * columns]
        All weighted values, then all weights, so that both are written and read at once.
    values, weights : complex128 and float64 [rows, columns]
        Views of `cells`.
    """

    def __init__(self, rows: int, columns: int) -> None:
        pixels = rows * columns
        self.cells = np.zeros(3 * pixels)
        self.values = self.cells[: 2 * pixels].view(np.complex128).reshape(rows, columns)
        self.weights = self.cells[2 * pixels :].reshape(rows, columns)

    def add(self, placed: PlacedPatches, weight: NDArray[np.float64]) -> None:
        """Add patches with a weight [h, w], in their order, clipped to the canvas."""
        from ptychonnx.runtime.reconstruction.stitching.kernel import add_patches  # numba is slow to import

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
        """Yield (first row, first column, weighted values, weights) of the whole canvas."""
        yield 0, 0, self.values, self.weights


class TiledCanvas:
    """Sums in square tiles: the most recently used are in memory, the others in a temporary file.

    Tiles that no patch reaches take no space. The file has no name and disappears with this object, however the
    process ends. Each pixel receives the same additions in the same order as on a `Canvas`.
    """

    def __init__(self, rows: int, columns: int, memory: int, side: int = TILE) -> None:
        """Create an empty canvas.

        Parameters
        ----------
        memory
            Limit for the tiles in memory, in bytes; at least one tile is kept.
        side
            Side of a tile in pixels.

        Raises
        ------
        EnvironmentFailure
            If no temporary file can be created.
        """
        self._shape = rows, columns
        self._side = side
        self._capacity = max(1, memory // (BYTES_PER_PIXEL * side**2))
        self._tiles: OrderedDict[tuple[int, int], Canvas] = OrderedDict()
        self._changed: set[tuple[int, int]] = set()
        self._slots: dict[tuple[int, int], int] = {}
        with disk_errors(_CONTENT):
            self._file = tempfile.TemporaryFile(prefix="ptychonnx-canvas-")  # noqa: SIM115 - lives as long as this

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self._shape

    def disk_bytes(self, corners: NDArray[np.intp], shape: tuple[int, ...]) -> int:
        """Size of all tiles under patches of one shape with corners [n, 2]."""
        return len(self._covering(corners, corners + shape)) * BYTES_PER_PIXEL * self._side**2

    def add(self, placed: PlacedPatches, weight: NDArray[np.float64]) -> None:
        """Add patches with a weight [h, w], tile by tile; see `Canvas.add`."""
        low, high = placed.corners, placed.corners + weight.shape
        for key in self._covering(low, high):
            origin = np.array(key) * self._side
            reaching = np.flatnonzero(((low < origin + self._side) & (high > origin)).all(axis=1))
            self._tile(key).add(placed.relative_to(origin, reaching), weight)
            self._changed.add(key)

    def blocks(self) -> Iterator[tuple[int, int, NDArray[np.complex128], NDArray[np.float64]]]:
        """Yield (first row, first column, weighted values, weights) of the tiles that a patch reaches, row by row."""
        for key in sorted({*self._tiles, *self._slots}):
            row, column = key[0] * self._side, key[1] * self._side
            rows, columns = self._shape[0] - row, self._shape[1] - column
            tile = self._tile(key)
            yield row, column, tile.values[:rows, :columns], tile.weights[:rows, :columns]

    def _covering(self, low: NDArray[np.intp], high: NDArray[np.intp]) -> list[tuple[int, int]]:
        """Tiles under the regions from `low` to `high` [m, 2], row by row."""
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
        """Return a tile, which stays in memory until others evict it."""
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        with disk_errors(_CONTENT):
            tile = self._free_tile()
            if key in self._slots:
                self._file.seek(self._slots[key] * tile.cells.nbytes)
                self._file.readinto(tile.cells.data)
            else:
                tile.cells.fill(0)
        self._tiles[key] = tile
        return tile

    def _free_tile(self) -> Canvas:
        """Return a new tile, or the least recently used one after writing it to the file."""
        if len(self._tiles) < self._capacity:
            return Canvas(self._side, self._side)
        key, tile = self._tiles.popitem(last=False)
        if key in self._changed:
            slot = self._slots.setdefault(key, len(self._slots))
            self._file.seek(slot * tile.cells.nbytes)
            self._file.write(tile.cells.data)
            self._changed.remove(key)
        return tile
