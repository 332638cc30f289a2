"""The result of a stitcher: an object in memory, or one that is read tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.reconstruction.stitching.canvas import BYTES_PER_PIXEL, TiledCanvas

__all__ = ["Block", "Stitched", "StitchedTiles", "too_large", "weighted_mean"]

# Pixels that are divided at once, so that temporary arrays stay small.
_CHUNK_PIXELS = 2**20


@dataclass(frozen=True)
class Block:
    """A rectangular part of an object."""

    # Pixels of the object that it covers.
    rows: slice
    columns: slice
    # complex64 and float64 [h, w], as in `Stitched`.
    object: NDArray[np.complex64]
    weight: NDArray[np.float64]


@dataclass(frozen=True)
class Stitched:
    """A stitched object in memory.

    * `object`: complex64 [rows, columns], transmission; 0 where no patch reaches.
    * `weight`: float64 [rows, columns], sum of the weights of all patches at each pixel.
    * `origin`: (row, column) of pixel [0, 0] in the coordinates of `Scan.positions`, in pixels.
    """

    object: NDArray[np.complex64]
    weight: NDArray[np.float64]
    origin: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        rows, columns = self.object.shape
        return rows, columns

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Pixels that at least one patch reaches, bool [rows, columns]."""
        return self.weight > 0

    def blocks(self) -> Iterator[Block]:
        """Yield the object as one block."""
        rows, columns = self.shape
        yield Block(slice(0, rows), slice(0, columns), self.object, self.weight)


class StitchedTiles:
    """A stitched object beyond the memory limit, which is read block by block.

    `origin`: (row, column) of pixel [0, 0] in the coordinates of `Scan.positions`, in pixels.
    """

    def __init__(self, canvas: TiledCanvas, origin: tuple[float, float]) -> None:
        self._canvas = canvas
        self.origin = origin

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self._canvas.shape

    def blocks(self) -> Iterator[Block]:
        """Yield the tiles that a patch reaches, row by row; the object is 0 everywhere else."""
        for row, column, values, weights in self._canvas.blocks():
            rows, columns = weights.shape
            yield Block(
                slice(row, row + rows),
                slice(column, column + columns),
                weighted_mean(values, weights),
                weights.copy(),
            )

    @property
    def object(self) -> NDArray[np.complex64]:
        """Raises InputError: the object exceeds the memory limit."""
        return self._refuse()

    @property
    def weight(self) -> NDArray[np.float64]:
        """Raises InputError: the object exceeds the memory limit."""
        return self._refuse()

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Raises InputError: the object exceeds the memory limit."""
        return self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(too_large(self.shape, "this takes the whole object"))


def weighted_mean(values: NDArray[np.complex128], weights: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Weighted mean complex64 [rows, columns]; 0 where the weight is 0."""
    mean = np.zeros(weights.shape, dtype=np.complex64)
    step = max(1, _CHUNK_PIXELS // weights.shape[1])
    for start in range(0, len(weights), step):
        band = slice(start, start + step)
        covered = weights[band] > 0
        np.divide(values[band], weights[band], out=mean[band], where=covered, casting="same_kind")
    return mean


def too_large(shape: tuple[int, int], consumer: str) -> str:
    """Error message for a consumer that takes only whole objects, and a canvas that is kept in tiles."""
    needed = shape[0] * shape[1] * BYTES_PER_PIXEL / 1e9
    return (
        f"{consumer}, and its canvas of {shape[0]} x {shape[1]} pixels is kept in tiles: write it to .h5 or .cxi, or "
        f"let the canvas take {needed:.2g} GB of memory"
    )
