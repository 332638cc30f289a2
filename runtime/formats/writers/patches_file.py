"""Predicted patches with their positions, for those who stitch themselves.

Datasets: `patches` complex64 [m, N, N], the transmission of the object as the network predicts it, neither weighted nor
rotated to a common phase; `pattern` int64 [m], the pattern of the scan that each belongs to; `positions_px` float64
[m, 2], (row, column) in pixels of the centre of each, which is its pixel [N // 2, N // 2]; `probe` complex64
[modes, N, N] and `pixel_size_m`, if known. The attributes `scan` and `contract` say where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.atomic import atomic_path, check_output
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.writers.new_hdf5 import new_hdf5
from ptychonnx.runtime.scan import Scan

__all__ = ["check_patches_file", "patches_file"]


def check_patches_file(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Raises InputError if it has another ending than .h5 or .hdf5, or the folder is not writable.
    """
    if path.suffix not in (".h5", ".hdf5"):
        raise InputError(f"{path}: patches are written as HDF5, expected a name that ends in .h5")
    check_output(path)


@contextmanager
def patches_file(
    path: Path, scan: Scan, contract: Contract
) -> Iterator[Callable[[NDArray[np.intp], NDArray[np.complex64]], None]]:
    """Yield a function that appends patches [m, N, N] of patterns [m]; the file appears when the block ends."""
    size = scan.size
    with atomic_path(path) as partial, new_hdf5(partial) as file:
        patches = file.create_dataset(
            "patches", (0, size, size), np.complex64, maxshape=(None, size, size), chunks=(1, size, size)
        )
        pattern = file.create_dataset("pattern", (0,), np.int64, maxshape=(None,), chunks=(1024,))

        def append(rows: NDArray[np.intp], values: NDArray[np.complex64]) -> None:
            first = len(patches)
            for dataset, content in ((patches, values), (pattern, rows)):
                dataset.resize(first + len(rows), axis=0)
                dataset[first:] = content

        yield append
        file["positions_px"] = scan.positions[pattern[:]]
        if scan.probe is not None:
            file["probe"] = scan.settled().probe
        if scan.pixel_size is not None:
            file["pixel_size_m"] = scan.pixel_size
        file.attrs["scan"], file.attrs["contract"] = scan.name, contract.to_json()
