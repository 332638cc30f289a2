"""HDF5 files that are being written: one that grows (SWMR), or data files that appear one by one.

`swmr+file:///data/scan.h5?data=/entry/data/data` watches a dataset [n, rows, columns]. A name with a star, such as
`scan_data_*.h5`, stands for files in the order of their numbers. The series ends after N frames, if the query has
`frames=N`, or when nothing has been added for `idle` seconds (10 by default).
"""

from __future__ import annotations

import time
from glob import has_magic
from pathlib import Path

import h5py
from pydantic import PositiveInt

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.live.events import Frame, FrameEvent, SeriesBegin, SeriesEnd
from ptychonnx.runtime.live.source_url import Seconds, SourceOptions, source_options, watched_file
from ptychonnx.runtime.live.swmr import open_growing, poll
from ptychonnx.runtime.paths import in_order

__all__ = ["GrowingHDF5"]


class _Options(SourceOptions):
    data: str = "/entry/data/data"
    frames: PositiveInt | None = None
    idle: Seconds = 10.0


class GrowingHDF5:
    """Files of a detector, see `ptychonnx.runtime.live.events.FrameSource`; the series has number 1."""

    def __init__(self, url: str) -> None:
        self._url, self._options = url, source_options(url, _Options)
        self._path = watched_file(url)
        self._done: set[Path] = set()
        self._file: h5py.File | None = None
        self._dataset: h5py.Dataset | None = None
        # Frames of the files before, and of this one.
        self._before, self._index = 0, 0
        self._state = "waiting"
        self._grew = time.monotonic()

    def receive(self, timeout: float) -> FrameEvent | None:
        if self._state == "ended":
            time.sleep(timeout)
            return None
        if (event := poll(self._next, timeout)) is not None:
            self._grew = time.monotonic()
        return event

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = self._dataset = None

    def _next(self) -> FrameEvent | None:
        number = self._before + self._index
        if number == self._options.frames:
            return self._end()
        if self._dataset is None and not self._open():
            return self._end() if self._state == "begun" and self._is_idle() else None
        if self._state == "waiting":
            self._state = "begun"
            return SeriesBegin(1, self._options.frames)
        assert self._dataset is not None
        try:
            self._dataset.refresh()
            available = self._dataset.shape[0]
            if self._index < available and self._is_written(self._index):
                image = self._dataset[self._index]
                self._index += 1
                return Frame(1, number, image)
            later = range(self._index, available)
            if self._is_idle() and (written := next(filter(self._is_written, later), None)) is not None:
                # Frames before it were never written.
                self._index = written
                return None
        except (OSError, RuntimeError, KeyError) as error:
            raise InputError(f"{self._url}: damaged or unreadable ({first_line(error)})") from error
        if self._following():
            self._done.add(Path(self._file.filename) if self._file is not None else self._path)
            self._before, self._index = number, 0
            self.close()
            return None
        return self._end() if self._is_idle() else None

    def _end(self) -> SeriesEnd:
        self._state = "ended"
        self.close()
        return SeriesEnd(1)

    def _is_idle(self) -> bool:
        return time.monotonic() - self._grew > self._options.idle

    def _is_written(self, index: int) -> bool:
        """False while a frame has its place in the dataset but not its data."""
        assert self._dataset is not None
        if not self._dataset.chunks:
            return True
        depth = self._dataset.chunks[0]
        try:
            # The place of a chunk is also what `get_chunk_info_by_coord` tells, but HDF5 then walks through all chunks.
            self._dataset.id.read_direct_chunk((index // depth * depth, 0, 0))
        except RuntimeError as error:
            if "not allocated" in str(error):
                return False
            raise
        return True

    def _files(self) -> list[Path]:
        if not has_magic(self._path.name):
            return [self._path]
        names = in_order(path.name for path in self._path.parent.glob(self._path.name))
        return [self._path.with_name(name) for name in names]

    def _following(self) -> bool:
        """Whether a file after the present one has appeared."""
        present = None if self._file is None else Path(self._file.filename)
        return any(path not in self._done and path != present for path in self._files())

    def _open(self) -> bool:
        """Open the next file, if it is there and has its dataset."""
        for path in self._files():
            if path in self._done or not path.is_file():
                continue
            try:
                self._file = open_growing(path)
                dataset = self._file[self._options.data]
            except (OSError, KeyError, RuntimeError):
                # Not complete yet: the writer has created it and is about to write.
                self.close()
                return False
            if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3:
                raise InputError(f"{path}: {self._options.data} is no dataset [n, rows, columns]")
            self._dataset = dataset
            return True
        return False
