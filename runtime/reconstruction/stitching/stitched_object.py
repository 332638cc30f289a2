"""What a stitcher gives: an object in memory, or one that is read tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.reconstruction.stitching.canvas import BYTES_PER_PIXEL, TiledCanvas

__all__ = ["Block", "Stitched", "StitchedTiles", "merged", "too_large"]

# Pixels that are divided at once: temporary arrays stay small beside the object.
_DIVIDED = 2**20


@dataclass(frozen=True)
class Block:
    """A part of an object.

    Attributes
    ----------
    rows, columns
        Where it lies.
    object, weight
        complex64 and float64 [h, w], as in `Stitched`.
    """

    rows: slice
    columns: slice
    object: NDArray[np.complex64]
    weight: NDArray[np.float64]


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
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.object.shape
        return rows, columns

    @property
    def covered(self) -> NDArray[np.bool_]:
        """True where at least one patch contributed."""
        return self.weight > 0

    def blocks(self) -> Iterator[Block]:
        """The object in parts, here in one."""
        rows, columns = self.shape
        yield Block(slice(0, rows), slice(0, columns), self.object, self.weight)


class StitchedTiles:
    """A merged object too large for memory, for whoever can take it in blocks.

    Attributes
    ----------
    origin
        (row, column) of pixel [0, 0] in the coordinates of `Scan.positions`.
    """

    def __init__(self, canvas: TiledCanvas, origin: tuple[float, float]) -> None:
        self._canvas = canvas
        self.origin = origin

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._canvas.shape

    def blocks(self) -> Iterator[Block]:
        """The tiles that a patch reached, row by row; 0 everywhere else."""
        for row, column, values, weights in self._canvas.blocks():
            rows, columns = weights.shape
            yield Block(
                slice(row, row + rows),
                slice(column, column + columns),
                merged(values, weights),
                weights.copy(),
            )

    @property
    def object(self) -> NDArray[np.complex64]:
        """Refused: nothing holds the whole."""
        return self._refuse()

    @property
    def weight(self) -> NDArray[np.float64]:
        """Refused: nothing holds the whole."""
        return self._refuse()

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Refused: nothing holds the whole."""
        return self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(too_large(self.shape, "this takes the whole object"))


def merged(values: NDArray[np.complex128], weights: NDArray[np.float64]) -> NDArray[np.complex64]:
    """The weighted mean [rows, columns]; 0 where the weight is."""
    mean = np.zeros(weights.shape, dtype=np.complex64)
    step = max(1, _DIVIDED // weights.shape[1])
    for start in range(0, len(weights), step):
        band = slice(start, start + step)
        covered = weights[band] > 0
        np.divide(values[band], weights[band], out=mean[band], where=covered, casting="same_kind")
    return mean


def too_large(shape: tuple[int, int], wanted: str) -> str:
    """One line for a canvas that is kept in tiles although something takes it whole only."""
    needed = shape[0] * shape[1] * BYTES_PER_PIXEL / 1e9
    return (
        f"{wanted}, and its canvas of {shape[0]} x {shape[1]} pixels is kept in tiles: write it to .h5 or .cxi, or "
        f"let the canvas take {needed:.2g} GB of memory"
    )
