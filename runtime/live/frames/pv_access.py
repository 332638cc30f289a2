"""EPICS PV Access: images of areaDetector as NTNDArray.

`pva://host:port/13SIM1:Pva1:Image?first=1` asks one server, `pva:///NAME?first=1` those that the EPICS environment
variables name. `first` is the `uniqueId` of the first frame of a series, which no field states: 1 for areaDetector,
whose counter is increased before a frame is sent. A series begins whenever it appears again. It ends after N frames if
the query has `frames=N`, or when nothing comes for `idle` seconds (10 by default).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.live.codecs import decoded
from ptychonnx.runtime.live.events import Frame, FrameEvent, SeriesBegin, SeriesEnd, UnreadableFrame
from ptychonnx.runtime.live.pva import PVMonitor
from ptychonnx.runtime.live.source_url import Seconds, SourceOptions, source_options

__all__ = ["PVAccess"]

# Codecs of areaDetector. JPEG is lossy, and 8 bits.
_CODECS = ("lz4", "bslz4", "blosc", "jpeg")
# Types of compressed data, by the number that areaDetector writes into the parameters of the codec.
_TYPES = {1: "i1", 2: "i2", 3: "i4", 5: "u1", 6: "u2", 7: "u4", 9: "f4"}
# Header of HDF5's filters, which areaDetector leaves out of bitshuffled data.
_HEADER = struct.Struct(">QI")


class _Options(SourceOptions):
    first: int
    frames: PositiveInt | None = None
    idle: Seconds = 10.0


class PVAccess(PVMonitor):
    """An image PV, see `ptychonnx.runtime.live.events.FrameSource`."""

    _example = "pva://host:port/NAME?first=1, with the uniqueId of the first frame"

    def __init__(self, url: str) -> None:
        self._options = source_options(url, _Options)
        super().__init__(url)
        self._series, self._received = 0, 0
        self._running = False

    def _quiet(self, seconds: float) -> SeriesEnd | None:
        return self._end() if self._running and seconds > self._options.idle else None

    def _end(self) -> SeriesEnd:
        self._running = False
        return SeriesEnd(self._series)

    def _events(self, update: Any) -> list[FrameEvent]:
        events: list[FrameEvent] = []
        try:
            identity = int(update["uniqueId"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{self._url}: has no uniqueId, expected an NTNDArray") from error
        if not self._running or (identity == self._options.first and self._received):
            self._series, self._received, self._running = self._series + 1, 0, True
            events.append(SeriesBegin(self._series, self._options.frames))
        self._received += 1
        number = identity - self._options.first
        if number < 0:
            raise InputError(
                f"{self._url}: uniqueId {identity}, expected at least first={self._options.first}"
            )
        try:
            events.append(Frame(self._series, number, _image(update, f"{self._url}: frame {number}")))
        except InputError as error:
            events.append(UnreadableFrame(self._series, number, str(error)))
        if number + 1 == self._options.frames:
            events.append(self._end())
        return events


def _image(update: Any, where: str) -> NDArray:
    """The image [rows, columns] of an NTNDArray, whose first dimension is that of the columns."""
    try:
        sides = [int(dimension["size"]) for dimension in update["dimension"]]
        codec, values = update["codec.name"], np.asarray(update["value"])
        parameters = update["codec.parameters"] if codec else None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {first_line(error)}, expected an NTNDArray") from error
    if len(sides) != 2:
        raise InputError(f"{where} has {len(sides)} dimensions, expected columns and rows")
    columns, rows = sides
    if not codec:
        if values.size != rows * columns:
            raise InputError(f"{where}: {values.size} values, expected {rows} x {columns}")
        return values.reshape(rows, columns)
    if parameters not in _TYPES or codec not in _CODECS:
        raise InputError(
            f"{where}: compressed with {codec} of type {parameters}, expected {', '.join(_CODECS)} of integers"
        )
    dtype, data = np.dtype("<" + _TYPES[parameters]), values.tobytes()
    if codec == "bslz4":
        data = _HEADER.pack(rows * columns * dtype.itemsize, 0) + data
    return decoded(data, codec, (rows, columns), dtype, where)
