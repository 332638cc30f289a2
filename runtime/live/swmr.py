"""Opening HDF5 files while another process writes them."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)

__all__ = ["open_growing"]


def open_growing(path: Path) -> h5py.File:
    """Open a file for reading; raises OSError while it is not complete enough to be read."""
    try:
        return h5py.File(path, "r", libver="latest", swmr=True)
    except OSError:
        # Files that were not written for a reader at the same time, and are complete.
        return h5py.File(path, "r")
