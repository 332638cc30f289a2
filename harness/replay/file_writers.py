"""Files that grow as a detector and encoders write them: frames in HDF5, positions in a text table."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = ["SwmrWriter", "TableWriter"]

_DATA = "/entry/data/data"


class SwmrWriter:
    """A dataset [n, rows, columns] at `/entry/data/data`, one compressed chunk for each frame, read while it grows."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = h5py.File(path, "w", libver="latest")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error})") from error
        self._dataset: h5py.Dataset | None = None

    def begin(self, frames: int) -> None:
        """The dataset is created with the first frame."""

    def send(self, number: int, image: NDArray) -> None:
        """Write one frame to its place; a file has each frame once."""
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
        self._file.close()


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
