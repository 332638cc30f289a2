"""Positions of a raster scan that were not recorded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.read_options import ReadOptions

__all__ = ["raster_positions"]


def raster_positions(options: ReadOptions, n: int, where: str) -> NDArray[np.float64]:
    """Positions (row, column) [n, 2] of a raster by its shape and step, row by row.

    Raises InputError if the step is missing, or the raster does not have n points.
    """
    if options.raster is None or options.raster_step is None:
        raise InputError(f"{where}: --raster and --raster-step describe a raster together, expected both")
    rows, columns = options.raster
    if rows * columns != n:
        raise InputError(
            f"{where}: a raster of {rows} x {columns} points for {n} patterns, expected {n} points"
        )
    return np.indices((rows, columns)).reshape(2, -1).T.astype(np.float64) * options.raster_step
