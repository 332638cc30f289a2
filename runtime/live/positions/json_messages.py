"""Positions as JSON messages over ZeroMQ, as PandA boxes publish them.

* ``{"msg_type": "start"}`` begins a scan.
* ``{"msg_type": "data", "datasets": {"/INENC2.VAL.Value": {"starting_sample_number": 0, "data": [...]}, ...}}``:
  samples of encoders. Sample i belongs to frame i // samples, where the query of the URL states the number of samples
  for each frame and the names of the channels: ``zmq+sub://panda:8888?x=/INENC2.VAL.Value&y=/INENC3.VAL.Value&samples=10``.
* ``{"msg_type": "data", "frame": [...], "x": [...], "y": [...]}``: samples with the number of their frame, which may
  repeat.
* ``{"msg_type": "stop"}`` ends a scan.

x is the column, y the row.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from pydantic import PositiveInt

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.read_options import Unit
from ptychonnx.runtime.live.events import (
    PositionEvent,
    PositionSamples,
    PositionsBegin,
    PositionsEnd,
    pairs,
    position_samples,
)
from ptychonnx.runtime.live.source_url import SourceOptions, source_options
from ptychonnx.runtime.live.zeromq import ZeroMQSource

__all__ = ["JsonMessages"]


class _Options(SourceOptions):
    x: str = "/INENC2.VAL.Value"
    y: str = "/INENC3.VAL.Value"
    samples: PositiveInt = 1
    unit: Unit | None = None


class JsonMessages(ZeroMQSource):
    """A motion controller that sends JSON, see `ptychonnx.runtime.live.events.PositionSource`."""

    def __init__(self, url: str) -> None:
        self._options = source_options(url, _Options)
        self.unit = self._options.unit
        super().__init__(url)
        self._next = 0

    def _event(self, parts: list[bytes]) -> PositionEvent:
        part = parts[-1]
        try:
            message = json.loads(part)
            kind = message["msg_type"]
            if kind == "start":
                self._next = 0
                return PositionsBegin()
            if kind == "stop":
                return PositionsEnd()
            if kind == "data":
                return self._samples_of(message)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self._url}: a message that holds no positions ({error or type(error).__name__}), expected JSON with "
                f"msg_type and {self._options.x} and {self._options.y}, or frame, x and y"
            ) from error
        raise InputError(f"{self._url}: a message of type {kind!r}, expected start, data or stop")

    def _samples_of(self, message: dict[str, Any]) -> PositionSamples:
        if "datasets" not in message:
            return position_samples(message["frame"], message["y"], message["x"], self._url)
        sets = [message["datasets"][channel] for channel in (self._options.y, self._options.x)]
        starts = {int(one.get("starting_sample_number", self._next)) for one in sets}
        if len(starts) > 1:
            raise ValueError("x and y begin at different samples")
        start, count = starts.pop(), len(sets[0]["data"])
        self._next = start + count
        numbers = np.arange(start, start + count, dtype=np.int64) // self._options.samples
        return PositionSamples(numbers, pairs(sets[0]["data"], sets[1]["data"], count))
