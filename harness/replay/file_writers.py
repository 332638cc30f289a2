"""Files that grow as a detector and encoders write them: frames in HDF5, positions in a text table."""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import EnvironmentFailure, InputError, first_line

__all__ = ["SwmrWriter", "TableWriter"]

_DATA = "/entry/data/data"
_BROKEN: list[SwmrWriter] = []


class SwmrWriter:
    """A dataset [n, rows, columns] at `/entry/data/data`, one compressed chunk for each frame, read while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dataset: h5py.Dataset | None = None
        try:
            self._file = h5py.File(path, "w", libver="latest")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({_reason(error)})") from error

    def begin(self, frames: int) -> None:
        """The dataset is created with the first frame."""

    def send(self, number: int, image: NDArray) -> None:
        """Write one frame to its place; a file has each frame once."""
        with self._failures_end():
            if self._dataset is None:
                self._dataset = self._file.create_dataset(
                    _DATA,
                    (0, *image.shape),
                    image.dtype,
                    maxshape=(None, *image.shape),
                    chunks=(1, *image.shape),
                    **hdf5plugin.Bitshuffle(cname="lz4"),
                )
                self._file.swmr_mode = True
            if number >= self._dataset.shape[0]:
                self._dataset.resize(number + 1, axis=0)
            self._dataset[number] = np.ascontiguousarray(image)
            self._dataset.flush()

    def end(self) -> None:
        """Everything has been written."""

    def close(self) -> None:
        if self not in _BROKEN:
            with self._failures_end():
                self._file.close()

    @contextmanager
    def _failures_end(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            # HDF5 would write again when its objects are freed or the process ends, and crash: neither happens.
            _BROKEN.append(self)
            atexit.register(os._exit, EnvironmentFailure.exit_code)
            raise EnvironmentFailure(f"{self._path}: cannot be written ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """The system's reason in the message of HDF5, or the message."""
    number = re.search(r"errno = (\d+)", str(error))
    return os.strerror(int(number[1])) if number else first_line(error)


class TableWriter:
    """A text file with a line for each sample."""

    def __init__(self, path: Path, samples: int) -> None:
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
        self._samples = samples

    def begin(self) -> None:
        self._write("frame,x_px,y_px\n")

    def send(self, first: int, samples: NDArray[np.float64]) -> None:
        for index, (row, column) in enumerate(samples.tolist(), first):
            self._file.write(f"{index // self._samples},{column!r},{row!r}\n")
        self._file.flush()

    def end(self, frames: int) -> None:
        self._write("# end\n")

    def close(self) -> None:
        self._file.close()

    def _write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()
