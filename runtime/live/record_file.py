"""Arrays of one shape in a temporary file, which are written while a scan runs and read again at its end."""

from __future__ import annotations

import os
import tempfile

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptychonnx.runtime.reconstruction.stitching.temporary_files import disk_errors

__all__ = ["RecordFile"]


class RecordFile:
    """Records [rows, columns] by index. The file has no name and disappears with this object."""

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike, content: str) -> None:
        """Create an empty file.

        Raises EnvironmentFailure if there is no folder for temporary files.

        `content`: description of the records in error messages.
        """
        self.shape, self.dtype, self._content = shape, np.dtype(dtype), content
        self._bytes = shape[0] * shape[1] * self.dtype.itemsize
        with disk_errors(content):
            self._file = tempfile.TemporaryFile(prefix="ptychonnx-live-", buffering=0)  # noqa: SIM115

    def write(self, first: int, records: NDArray) -> None:
        """Write records [m, rows, columns] at consecutive indices.

        Raises EnvironmentFailure if the disk is full.
        """
        data = memoryview(np.ascontiguousarray(records, self.dtype).data).cast("B")
        place = first * self._bytes
        with disk_errors(self._content):
            while data:
                written = os.pwrite(self._file.fileno(), data, place)
                data, place = data[written:], place + written

    def read(self, indices: NDArray[np.intp]) -> NDArray:
        """Records [m, rows, columns] by their indices; consecutive ones are read together.

        Raises EnvironmentFailure if the file cannot be read.
        """
        records = np.empty((len(indices), *self.shape), self.dtype)
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1
        start = 0
        with disk_errors(self._content):
            for run in np.split(indices, breaks):
                if not len(run):
                    continue
                data = memoryview(records[start : start + len(run)].data).cast("B")
                place = int(run[0]) * self._bytes
                while data:
                    count = os.preadv(self._file.fileno(), [data], place)
                    if not count:
                        raise OSError("the file ends early")
                    data, place = data[count:], place + count
                start += len(run)
        return records
