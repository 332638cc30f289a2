"""HDF5 files that another process is writing: opening them, and asking again until there is something new."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)

__all__ = ["open_growing", "poll"]

_POLL_SECONDS = 0.02
_Event = TypeVar("_Event")


def open_growing(path: Path) -> h5py.File:
    """Open a file for reading; raises OSError while it is not complete enough to be read."""
    try:
        return h5py.File(path, "r", libver="latest", swmr=True)
    except OSError:
        # Files that were not written for a reader at the same time, and are complete.
        return h5py.File(path, "r")


def poll(attempt: Callable[[], _Event], timeout: float) -> _Event:
    """What the first attempt with a result returns; None if there is none in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while (event := attempt()) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return event
