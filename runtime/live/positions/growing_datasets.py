"""Positions in an HDF5 file that is being written (SWMR).

`swmr+file:///data/positions.h5?x=/entry/x&y=/entry/y` watches two datasets [m]. Sample i belongs to frame i // samples,
where the query may state `samples=K`, or to the frame whose number is in a third dataset, `frame=/entry/frame`. The
unit is that of the query, `unit=um`, or of the attribute `units`. The positions end after N frames, if the query has
`frames=N`. A value that is not finite has not been written yet.
"""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import h5py
import numpy as np

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.live.events import PositionEvent, PositionsEnd
from ptychonnx.runtime.live.positions.sample_columns import known_unit, position_samples
from ptychonnx.runtime.live.swmr import open_growing, poll

__all__ = ["GrowingDatasets"]


class GrowingDatasets:
    """A file of a motion controller, see `ptychonnx.runtime.live.events.PositionSource`."""

    def __init__(self, url: str) -> None:
        self._url, parts = url, urlsplit(url)
        self._path = Path(unquote(parts.netloc + parts.path))
        query = dict(parse_qsl(parts.query))
        expected = "x and y, and possibly frame or samples, frames and unit"
        if set(query) - {"x", "y", "frame", "samples", "frames", "unit"} or not {"x", "y"} <= set(query):
            raise InputError(f"{url}: names {', '.join(query) or 'nothing'}, expected {expected}")
        try:
            self._samples, self._frames = int(query.get("samples", 1)), int(query.get("frames", 0))
        except ValueError as error:
            raise InputError(f"{url}: {error}, expected numbers of samples and frames") from error
        if self._samples < 1:
            raise InputError(f"{url}: samples={self._samples}, expected the number of samples for each frame")
        if not self._path.parent.is_dir():
            raise InputError(f"{url}: no such folder, expected a file that is written into it")
        self.unit = known_unit(query.get("unit"), url)
        self._keys = [query[name] for name in ("y", "x", "frame") if name in query]
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
        if self._frames and self._done == self._frames * self._samples:
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
        counted = np.arange(self._done, self._done + count) // self._samples
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
        if self.unit is None and (stated := sets[0].attrs.get("units")) is not None:
            self.unit = known_unit(stated.decode() if isinstance(stated, bytes) else str(stated), self._url)
        return True
