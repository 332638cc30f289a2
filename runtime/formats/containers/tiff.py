"""Frames in TIFF files, one or several a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.machine import check_memory

__all__ = ["read_tiff"]


def read_tiff(path: Path, expected: str) -> NDArray:
    """The frames [n, rows, columns] of a file.

    Raises InputError if it is damaged, holds colours, or does not fit into memory.
    """
    import tifffile  # a large import for few scans

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            # What the file declares, before anything is allocated.
            check_memory(series.size * np.dtype(series.dtype or "u1").itemsize, str(path))
            frames = np.asarray(series.asarray())
            several = len(file.series) > 1
    except InputError:
        raise
    except Exception as error:  # image libraries raise types of their own
        raise InputError(
            f"{path}: damaged or unreadable ({first_line(error)}), expected {expected}"
        ) from error
    if frames.ndim == 2:
        frames = frames[None]
    if several or frames.ndim != 3 or "S" in series.axes:
        raise InputError(
            f"{path}: images of the axes {series.axes} and shape {frames.shape}, expected grey images of one size"
        )
    return frames
