"""The sums of a stitcher, weighted values and weights in double precision, in memory or in tiles on disk."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.machine import available_memory
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
    """Default limit for sums in memory, in bytes: a quarter of the memory that this process may use.

    The object and its weight, computed from the sums at the end, take another two thirds of it.
    """
    memory = available_memory()
    return 2**31 if memory is None else memory // 4


@dataclass(frozen=True)
class PlacedPatches:
    """Patches with their places on a canvas."""

    patches: NDArray[np.complex64]  # complex64 [m, h, w], contiguous
    # int [m, 2], (row, column) of the canvas pixel under the first pixel of each patch.
    corners: NDArray[np.intp]
    fractions: NDArray[np.float64]  # float64 [m, 2], additional shift down and to the right, in [0, 1) pixels
    # Whether patches are shifted by the fractions when they are added; otherwise they have been shifted before.
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

    `values` and `weights`: complex128 and float64 [rows, columns], sums of weighted values and of weights.
    """

    def __init__(self, rows: int, columns: int, cells: NDArray[np.float64] | None = None) -> None:
        """Create an empty canvas, or one whose sums are in `cells`, float64 [3 * rows * columns]."""
        pixels = rows * columns
        cells = np.zeros(3 * pixels) if cells is None else cells
        # First all weighted values, then all weights.
        self.values = cells[: 2 * pixels].view(np.complex128).reshape(rows, columns)
        self.weights = cells[2 * pixels :].reshape(rows, columns)

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

    def add_sums(
        self, row: int, column: int, values: NDArray[np.complex128], weights: NDArray[np.float64]
    ) -> None:
        """Add the sums [h, w] of another canvas, whose pixel [0, 0] lies at (row, column) of this one."""
        height, width = weights.shape
        self.values[row : row + height, column : column + width] += values
        self.weights[row : row + height, column : column + width] += weights

    def blocks(self) -> Iterator[tuple[int, int, NDArray[np.complex128], NDArray[np.float64]]]:
        """Yield (first row, first column, weighted values, weights) of the whole canvas."""
        yield 0, 0, self.values, self.weights


class TiledCanvas:
    """Sums in square tiles, in memory if they fit there, and else in a temporary file that is mapped to memory.

    Only tiles that a patch reaches take space. Mapped pages are released when they exceed the memory limit; the file
    keeps them. It has no name and disappears with this object, however the process ends. Each pixel receives the same
    additions in the same order as on a `Canvas`.

    `shape`: (rows, columns). `all_bytes`: size of all tiles.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        memory: int,
        corners: NDArray[np.intp],
        shape: tuple[int, ...],
        side: int = TILE,
    ) -> None:
        """Create an empty canvas.

        * `memory`: limit for the mapped tiles in memory, in bytes; at least one tile is kept.
        * `corners`: int [n, 2] (row, column), first pixels of all patches to be added.
        * `shape`: (h, w) of a patch.
        * `side`: side of a tile in pixels.
        """
        self.shape = rows, columns
        self._side = side
        self._tile_bytes = BYTES_PER_PIXEL * side**2
        self._capacity = max(1, memory // self._tile_bytes)
        self._slots = {key: slot for slot, key in enumerate(self._covering(corners, corners + shape))}
        self.all_bytes = len(self._slots) * self._tile_bytes
        self._in_memory = self.all_bytes <= memory
        self._resident: set[int] = set()
        self._map: mmap.mmap | None = None

    @property
    def disk_bytes(self) -> int:
        """Size of the temporary file; 0 if there is none."""
        return 0 if self._in_memory else self.all_bytes

    def add(self, placed: PlacedPatches, weight: NDArray[np.float64]) -> None:
        """Add patches with a weight [h, w], tile by tile; see `Canvas.add`.

        Raises InputError if a patch reaches a tile that no announced corner does. Raises EnvironmentFailure if the
        tiles do not fit on the disk.
        """
        low, high = placed.corners, placed.corners + weight.shape
        for key in self._covering(low, high):
            if key not in self._slots:
                raise InputError("a patch lies outside the canvas: its position is not among those announced")
            origin = np.array(key) * self._side
            reaching = np.flatnonzero(((low < origin + self._side) & (high > origin)).all(axis=1))
            self._tile(key).add(placed.relative_to(origin, reaching), weight)

    def add_sums(
        self, row: int, column: int, values: NDArray[np.complex128], weights: NDArray[np.float64]
    ) -> None:
        """Add the sums [h, w] of another canvas, tile by tile; see `Canvas.add_sums`.

        Tiles that no announced corner reaches are left out: the sums are zero there.
        """
        low = np.array([row, column])
        high = low + weights.shape
        for key in self._covering(low[None], high[None]):
            if key not in self._slots:
                continue
            origin = np.array(key) * self._side
            first, end = np.maximum(low, origin), np.minimum(high, origin + self._side)
            (top, left), (bottom, right) = (first - low).tolist(), (end - low).tolist()
            at_row, at_column = (first - origin).tolist()
            self._tile(key).add_sums(
                at_row, at_column, values[top:bottom, left:right], weights[top:bottom, left:right]
            )

    def blocks(self) -> Iterator[tuple[int, int, NDArray[np.complex128], NDArray[np.float64]]]:
        """Yield (first row, first column, weighted values, weights) of all tiles, row by row."""
        for key in self._slots:
            row, column = key[0] * self._side, key[1] * self._side
            rows, columns = self.shape[0] - row, self.shape[1] - column
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
        """Map a tile."""
        if self._map is None:
            self._map = self._allocate()
        slot = self._slots[key]
        if slot not in self._resident and len(self._resident) >= self._capacity:
            if hasattr(self._map, "madvise"):
                self._map.madvise(mmap.MADV_DONTNEED)
            self._resident.clear()
        self._resident.add(slot)
        cells = np.frombuffer(self._map, np.float64, 3 * self._side**2, slot * self._tile_bytes)
        return Canvas(self._side, self._side, cells)

    def _allocate(self) -> mmap.mmap:
        """Memory for all tiles, or a file of their size."""
        if self._in_memory:
            return mmap.mmap(-1, self.all_bytes)
        # Reserve the space of all tiles: without it, writing to a map on a full disk would kill the process.
        with disk_errors(_CONTENT), tempfile.TemporaryFile(prefix="ptychonnx-canvas-") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.all_bytes)
            else:
                file.truncate(self.all_bytes)
            return mmap.mmap(file.fileno(), self.all_bytes)
