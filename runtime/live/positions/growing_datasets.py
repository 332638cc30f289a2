"""Positions in an HDF5 file that is being written (SWMR).

`swmr+file:///data/positions.h5?x=/entry/x&y=/entry/y` watches two datasets [m]. Sample i belongs to frame i // samples,
where the query may state `samples=K`, or to the frame whose number is in a third dataset, `frame=/entry/frame`. The
unit is that of the query, `unit=um`, or of the attribute `units`. The positions end after N frames, if the query has
`frames=N`. A value that is not finite has not been written yet.
"""

from __future__ import annotations

import time
from typing import get_args

import h5py
import numpy as np
from pydantic import PositiveInt

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.formats.containers.hdf5 import attribute_text
from ptychonnx.runtime.formats.read_options import Unit
from ptychonnx.runtime.live.events import PositionEvent, PositionsEnd, position_samples
from ptychonnx.runtime.live.source_url import SourceOptions, source_options, watched_file
from ptychonnx.runtime.live.swmr import open_growing, poll

__all__ = ["GrowingDatasets"]


class _Options(SourceOptions):
    x: str
    y: str
    frame: str | None = None
    samples: PositiveInt = 1
    frames: PositiveInt | None = None
    unit: Unit | None = None


class GrowingDatasets:
    """A file of a motion controller, see `ptychonnx.runtime.live.events.PositionSource`."""

    def __init__(self, url: str) -> None:
        self._url, self._options = url, source_options(url, _Options)
        self._path = watched_file(url)
        self.unit: str | None = self._options.unit
        self._keys = list(filter(None, (self._options.y, self._options.x, self._options.frame)))
        self._file: h5py.File | None = None
        self._done, self._ended = 0, False

    def receive(self, timeout: float) -> PositionEvent | None:
        if not self._ended:
            return poll(self._next, timeout)
        time.sleep(timeout)
        return None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next(self) -> PositionEvent | None:
        if self._options.frames and self._done == self._options.frames * self._options.samples:
            self._ended = True
            return PositionsEnd()
        if self._file is None and not self._open():
            return None
        assert self._file is not None
        try:
            sets = [self._file[key] for key in self._keys]
            for dataset in sets:
                dataset.refresh()
            stop = min(len(dataset) for dataset in sets)
            columns = [np.asarray(dataset[self._done : stop], np.float64) for dataset in sets]
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._url}: damaged or unreadable ({first_line(error)})") from error
        missing = np.flatnonzero(~np.isfinite(np.stack(columns)).all(axis=0))
        count = int(missing[0]) if len(missing) else stop - self._done
        if not count:
            return None
        rows, across, *numbers = (column[:count] for column in columns)
        counted = np.arange(self._done, self._done + count) // self._options.samples
        self._done += count
        return position_samples(numbers[0] if numbers else counted, rows, across, self._url)

    def _open(self) -> bool:
        """Open the file, if it is there and has its datasets."""
        if not self._path.is_file():
            return False
        try:
            self._file = open_growing(self._path)
            sets = [self._file[key] for key in self._keys]
        except (OSError, KeyError):
            # Not complete yet: the writer has created it and is about to write.
            self.close()
            return False
        for key, dataset in zip(self._keys, sets, strict=True):
            if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or dataset.dtype.kind not in "iuf":
                raise InputError(f"{self._path}: {key} is no dataset [m] of numbers")
        if self.unit is None and (stated := attribute_text(sets[0], "units")):
            if stated not in get_args(Unit):
                raise InputError(f"{self._url}: unit={stated}, expected one of {', '.join(get_args(Unit))}")
            self.unit = stated
        return True
