"""HDF5 files that another process is writing: opening them, and asking again until there is something new."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)

__all__ = ["open_growing", "poll"]

_POLL_SECONDS = 0.02
# HDF5 reads metadata that are incomplete again, after twice the time before, from 1 ns on: 28 times are 0.3 s. Its
# default of 100 times has no end where a file was cut short.
_ATTEMPTS = 28
_Event = TypeVar("_Event")


def open_growing(path: Path) -> h5py.File:
    """Open a file for reading; raises OSError while it is not complete enough to be read."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    # h5py has no name for this function; without it, it takes the defaults of HDF5.
    with suppress(AttributeError, OSError):
        attempts = ctypes.CDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
        attempts(ctypes.c_int64(access.id), ctypes.c_uint(_ATTEMPTS))
    try:
        flags = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ
        return h5py.File(h5py.h5f.open(os.fsencode(path), flags, fapl=access))
    except OSError:
        # Files that were not written for a reader at the same time, and are complete.
        return h5py.File(path, "r")


def poll(attempt: Callable[[], _Event], timeout: float) -> _Event:
    """What the first attempt with a result returns; None if there is none in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while (event := attempt()) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return event
