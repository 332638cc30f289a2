"""A mask of the detector in a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.formats.containers.npz import is_npy, load_npy
from ptychonnx.runtime.paths import StrPath

__all__ = ["read_mask"]


def read_mask(path: StrPath) -> NDArray[np.bool_]:
    """Read a mask [rows, columns] from an NPY or TIFF file; nonzero = valid.

    Raises InputError if the file is missing, damaged, or holds something else.
    """
    path, expected = Path(path), "a mask [rows, columns], nonzero = valid"
    if path.is_file() and is_npy(path):
        mask = load_npy(path, expected)
    elif path.suffix.lower() in (".tif", ".tiff") and path.is_file():
        import tifffile  # reading needs no image library otherwise

        try:
            mask = tifffile.imread(path)
        except Exception as error:  # image libraries raise types of their own
            raise InputError(
                f"{path}: damaged or unreadable ({first_line(error)}), expected {expected}"
            ) from error
    else:
        raise InputError(f"{path}: no NPY or TIFF file, expected {expected}")
    if mask.ndim != 2 or mask.dtype.kind not in "biuf":
        raise InputError(f"{path}: {mask.dtype} of shape {mask.shape}, expected {expected}")
    return mask != 0
