"""A folder in which scans appear, each of which is taken when its file is complete."""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py

from ptychonnx.runtime.errors import InputError

__all__ = ["complete_scans"]

_logger = logging.getLogger(__name__)

_SECONDS = 2.0
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK"


def complete_scans(folder: Path, seconds: float | None = None) -> Iterator[list[Path]]:
    """Yield, for ever, the scans in a folder that have become complete; none of them if there is nothing new.

    A file is complete if its size and time have been the same for `seconds`, 2 if None, and it opens as HDF5 or NPZ.
    HDF5 does not open while a program writes to it. A file that changes later is yielded again. Others are left alone.

    Raises InputError if the folder cannot be read.
    """
    before: dict[Path, tuple[int, int]] = {}
    taken: dict[Path, tuple[int, int]] = {}
    refused: set[Path] = set()
    while True:
        complete = []
        for path, state in _states(folder).items():
            if state == before.get(path) and state != taken.get(path):
                opens = _opens(path)
                if opens:
                    taken[path] = state
                    complete.append(path)
                elif opens is False and path not in refused:
                    refused.add(path)
                    _logger.warning("%s: does not open, and is taken when it does", path)
            before[path] = state
        yield complete
        time.sleep(_SECONDS if seconds is None else seconds)


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of the last change of each file, in the order of their names."""
    states = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                status = path.stat()
                states[path] = (status.st_size, status.st_mtime_ns)
    except FileNotFoundError:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder, expected one to watch") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be watched ({error.strerror})") from error
    return states


def _opens(path: Path) -> bool | None:
    """Whether a file opens as HDF5 or NPZ; None if it is neither."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5))
        if start == _HDF5:
            h5py.File(path, "r").close()
        elif not start.startswith(_ZIP):
            return None
        else:
            zipfile.ZipFile(path).close()
    except (OSError, zipfile.BadZipFile):
        return False
    return True
