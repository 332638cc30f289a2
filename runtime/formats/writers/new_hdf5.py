"""New HDF5 files that do not crash the process on a full disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

__all__ = ["TITLE_BYTES", "new_hdf5"]

# HDF5 leaves a user block of this size, the smallest, to the program that creates a file.
TITLE_BYTES = 512


@contextmanager
def new_hdf5(path: Path, title: bytes = b"") -> Iterator[h5py.File]:
    """Create an HDF5 file; errors of the disk are raised at the end of the block, or at an exception inside it.

    The title, at most `TITLE_BYTES` long, comes before all that HDF5 writes: it can be read from a file that is cut
    short.

    After a failed write, HDF5 keeps the data and tries again when it closes the file or the process ends, and a second
    failure is a segmentation fault. So HDF5 writes to a Python object that never fails.

    Raises OSError if the file cannot be written.
    """
    with path.open("w+b", buffering=0) as file:
        target = _NeverFailing(file)
        try:
            with h5py.File(target, "w", userblock_size=TITLE_BYTES if title else 0) as hdf5:
                yield hdf5
            target.seek(0)
            target.write(title)
        finally:
            if target.error is not None:
                raise target.error


class _NeverFailing(io.RawIOBase):
    """A file that discards all data after the first error, which it keeps."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._position = self._size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`, or discard it."""
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                self._file.seek(self._position)
                written = 0
                while written < len(view):
                    written += self._file.write(view[written:])
            except OSError as error:
                self.error = error
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read; discarded data are 0."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._position)
        count = self._file.readinto(view)
        view[count:] = bytes(len(view) - count)
        self._position += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self._size = self._position if size is None else size
        if self.error is None:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                self.error = error
        return self._size
