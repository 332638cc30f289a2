"""Positions in a text file that grows: one line for each sample, after a line of names.

Columns are `x` (the column) and `y` (the row), or `row` and `column`, with an ending that states the unit, such as
`x_um`, and possibly `frame`, the number of the frame; without it, the first line belongs to frame 0, and so on. A line
`# end` ends the scan. The text is in UTF-8, or in UTF-16 with its mark.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

import numpy as np

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import PositionEvent, PositionSamples, PositionsEnd
from ptychonnx.runtime.live.source_url import watched_file
from ptychonnx.runtime.live.swmr import poll

__all__ = ["GrowingTable"]

_NAMES = {"x": 1, "y": 0, "row": 0, "column": 1}
_NUMBERS = ("frame", "number", "index")
_UNIT = re.compile(r"_(m|mm|um|nm|px)$")
_SEPARATORS = re.compile(r"[,;\s]+")
_BLOCK = 2**20


class GrowingTable:
    """A file that a motion controller writes, see `ptychonnx.runtime.live.events.PositionSource`."""

    def __init__(self, url: str) -> None:
        self._path = watched_file(url)
        self._place, self._line, self._rows = 0, 0, 0
        self._rest = ""
        self._decode: Callable[[bytes], str] | None = None
        self._columns: tuple[int, int, int | None] | None = None
        self._width = 0
        self.unit: str | None = None
        self._ended = False

    def receive(self, timeout: float) -> PositionEvent | None:
        return poll(self._next, timeout)

    def close(self) -> None:
        """Nothing stays open between reads."""

    def _next(self) -> PositionEvent | None:
        if self._ended:
            self._ended = False
            return PositionsEnd()
        try:
            # A FIFO would wait for a writer.
            if self._path.exists() and not self._path.is_file():
                raise InputError(f"{self._path}: not a regular file, expected a text file that grows")
            with self._path.open("rb") as file:
                file.seek(0, 2)
                if file.tell() < self._place:
                    raise InputError(f"{self._path}: became shorter, expected a file that grows")
                file.seek(self._place)
                block = file.read(_BLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read ({error.strerror or error})") from error
        if self._decode is None:
            # The mark of UTF-16, as spreadsheets write it, may come a byte at a time.
            if len(block) < 2:
                return None
            marked = block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            encoding = "utf-16" if marked else "utf-8-sig"
            self._decode = codecs.getincrementaldecoder(encoding)("replace").decode
        self._place += len(block)
        *lines, self._rest = (self._rest + self._decode(block)).split("\n")
        if len(self._rest) > _BLOCK:
            raise InputError(
                f"{self._path}: a line of more than {_BLOCK} characters, expected lines of numbers"
            )
        numbers, values = [], []
        for line in lines:
            self._line += 1
            fields = self._fields(line.strip())
            if fields is not None:
                numbers.append(fields[0])
                values.append(fields[1:])
        if not numbers:
            return None
        return PositionSamples(np.array(numbers, np.int64), np.array(values, np.float64))

    def _fields(self, line: str) -> tuple[int, float, float] | None:
        """Number of the frame, row and column; None if the line holds no sample."""
        if line.startswith("#"):
            self._ended |= line.strip("# ").lower() == "end"
            return None
        if not line:
            return None
        fields = _SEPARATORS.split(line)
        if self._columns is None:
            self._columns = self._named(fields)
            self._width = len(fields)
            return None
        row, column, number = self._columns
        try:
            if len(fields) != self._width:
                raise ValueError(f"{len(fields)} columns")
            frame = self._rows if number is None else int(fields[number])
            sample = frame, float(fields[row]), float(fields[column])
        except ValueError as error:
            raise InputError(
                f"{self._path}: line {self._line} is no row of {self._width} numbers ({error})"
            ) from error
        self._rows += 1
        return sample

    def _named(self, names: list[str]) -> tuple[int, int, int | None]:
        places: dict[int, int] = {}
        units = set()
        for place, name in enumerate(names):
            bare = _UNIT.sub("", name.lower())
            if bare in _NAMES:
                places[_NAMES[bare]] = place
                units.add(match[1] if (match := _UNIT.search(name.lower())) else None)
        if set(places) != {0, 1} or len(units) > 1:
            raise InputError(
                f"{self._path}: the first line is {','.join(names)[:60]!r}, expected names: x and y, or row and column,"
                " with one unit such as x_um, and possibly frame"
            )
        self.unit = units.pop()
        number = next((place for place, name in enumerate(names) if name.lower() in _NUMBERS), None)
        return places[0], places[1], number
