"""EPICS PV Access: images of areaDetector as NTNDArray.

`pva://host:port/13SIM1:Pva1:Image?first=1` asks one server, `pva:///NAME?first=1` those that the EPICS environment
variables name. `first` is the `uniqueId` of the first frame of a series, which no field states: 1 for areaDetector,
whose counter is increased before a frame is sent. A series begins whenever it appears again. It ends after N frames if
the query has `frames=N`, or when nothing comes for `idle` seconds (10 by default).

The value that a PV has when we connect is that of the scan before, and is left out. PV Access drops updates when a
client is slow; the numbers of such frames are reported as missing.
"""

from __future__ import annotations

import queue
import struct
import time
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from p4p.client.thread import Context, Disconnected

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.live.codecs import decoded
from ptychonnx.runtime.live.events import Frame, FrameEvent, SeriesBegin, SeriesEnd, UnreadableFrame

__all__ = ["PVAccess"]

# Updates that wait, in memory, before PV Access drops some.
_UPDATES_AHEAD = 256
_IDLE_SECONDS = 10.0
# Types of compressed data, by the number that areaDetector writes into the parameters of the codec.
_TYPES = {1: "i1", 2: "i2", 3: "i4", 5: "u1", 6: "u2", 7: "u4", 9: "f4"}
# Header of HDF5's filters, which areaDetector leaves out of bitshuffled data.
_HEADER = struct.Struct(">QI")


class PVAccess:
    """An image PV, see `ptychonnx.runtime.live.events.FrameSource`."""

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        if unknown := set(query) - {"first", "frames", "idle"}:
            raise InputError(f"{url}: unknown {', '.join(sorted(unknown))}, expected first, frames and idle")
        name = unquote(parts.path.lstrip("/"))
        try:
            self._first = int(query["first"])
            self._frames = int(query["frames"]) if "frames" in query else None
            self._idle = float(query.get("idle", _IDLE_SECONDS))
            address = f"{parts.hostname}:{parts.port or 5075}" if parts.hostname else None
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{url}: {error}, expected pva://host:port/NAME?first=1, with the uniqueId of the first frame"
            ) from error
        if not name:
            raise InputError(f"{url}: no name of a PV, expected pva://host:port/NAME?first=1")
        own = {"EPICS_PVA_NAME_SERVERS": address, "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
        self._context = (
            Context("pva", conf=own, useenv=False, nt=False) if address else Context("pva", nt=False)
        )
        self._updates: queue.Queue[Any] = queue.Queue(_UPDATES_AHEAD)
        self._stale = True
        self._series, self._received = 0, 0
        self._running = False
        self._pending: list[FrameEvent] = []
        self._heard = time.monotonic()
        self._monitor = self._context.monitor(
            name,
            self._updates.put,
            request=f"record[queueSize={_UPDATES_AHEAD}]field()",
            notify_disconnect=True,
        )

    def receive(self, timeout: float) -> FrameEvent | None:
        deadline = time.monotonic() + timeout
        while not self._pending:
            try:
                update = self._updates.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                if self._running and time.monotonic() - self._heard > self._idle:
                    return self._end()
                return None
            self._take(update)
        return self._pending.pop(0)

    def close(self) -> None:
        self._monitor.close()
        # A callback that waits for room must not keep the context open.
        while not self._updates.empty():
            self._updates.get_nowait()
        self._context.close()

    def _end(self) -> SeriesEnd:
        self._running = False
        return SeriesEnd(self._series)

    def _take(self, update: Any) -> None:
        if isinstance(update, Exception):
            # The next value is that of the connection again.
            self._stale = True
            if not isinstance(update, Disconnected):
                raise InputError(f"{self._url}: {first_line(update)}, expected an NTNDArray") from update
            return
        if self._stale:
            self._stale = False
            return
        self._heard = time.monotonic()
        try:
            identity = int(update["uniqueId"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{self._url}: has no uniqueId, expected an NTNDArray") from error
        if not self._running or (identity == self._first and self._received):
            self._series, self._received, self._running = self._series + 1, 0, True
            self._pending.append(SeriesBegin(self._series, self._frames))
        self._received += 1
        number = identity - self._first
        if number < 0:
            raise InputError(f"{self._url}: uniqueId {identity}, expected at least first={self._first}")
        try:
            self._pending.append(Frame(self._series, number, _image(update, f"{self._url}: frame {number}")))
        except InputError as error:
            self._pending.append(UnreadableFrame(self._series, number, str(error)))
        if number + 1 == self._frames:
            self._pending.append(self._end())


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
    if parameters not in _TYPES or codec not in ("lz4", "bslz4"):
        raise InputError(
            f"{where}: compressed with {codec} of type {parameters}, expected lz4 or bslz4 of integers"
        )
    dtype, data = np.dtype("<" + _TYPES[parameters]), values.tobytes()
    if codec == "bslz4":
        data = _HEADER.pack(rows * columns * dtype.itemsize, 0) + data
    return decoded(data, codec, (rows, columns), dtype, where)
