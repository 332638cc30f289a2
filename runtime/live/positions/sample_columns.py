"""Columns of numbers become samples of positions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import PositionSamples

__all__ = ["pairs", "position_samples"]


def position_samples(numbers: Any, rows: Any, columns: Any, where: str) -> PositionSamples:
    """Samples from the number of the frame, the row and the column of each.

    Raises InputError if they differ in length or are no numbers.
    """
    try:
        numbers = np.atleast_1d(np.asarray(numbers))
        if numbers.dtype.kind not in "iuf" or not np.array_equal(numbers, np.rint(numbers)):
            raise ValueError("frame holds no whole numbers")
        return PositionSamples(numbers.astype(np.int64), pairs(rows, columns, len(numbers)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}, expected frame, x and y of each sample") from error


def pairs(rows: Any, columns: Any, count: int) -> NDArray[np.float64]:
    """(row, column) float64 [count, 2]; raises ValueError if the lengths differ."""
    pair = [np.atleast_1d(np.asarray(axis, dtype=np.float64)) for axis in (rows, columns)]
    if {axis.shape for axis in pair} != {(count,)}:
        raise ValueError(f"x and y differ in length, expected {count} each")
    return np.stack(pair, axis=1)
