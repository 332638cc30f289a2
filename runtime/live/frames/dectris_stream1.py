"""DECTRIS Stream v1 over ZeroMQ: JSON headers and compressed frames.

`zmq://host:port` receives from a detector's PUSH socket, which serves one receiver; `zmq+sub://host:port` from a PUB
socket, such as a proxy's. A series begins with `dheader-1.0` and ends with `dseries_end-1.0`. A receiver that joins
late never sees the header: its first frame begins the series.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.codecs import decoded
from ptychonnx.runtime.live.events import Frame, FrameEvent, SeriesBegin, SeriesEnd, UnreadableFrame
from ptychonnx.runtime.live.zeromq import ZeroMQSource

__all__ = ["DectrisStream1"]

_TYPES = {"uint8": "u1", "uint16": "u2", "uint32": "u4", "int16": "i2", "int32": "i4", "float32": "f4"}
_ORDERS = {"<": "<", ">": ">", "": "<"}


class DectrisStream1(ZeroMQSource):
    """A detector that sends Stream v1, see `ptychonnx.runtime.live.events.FrameSource`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._begun: int | None = None

    def _event(self, parts: list[bytes]) -> FrameEvent | None:
        header = self._json(parts[0])
        kind = str(header.get("htype", ""))
        if self._begun is not None and not kind and "series" not in header:
            # Some senders split the parts of the header into messages: this is the configuration of the detector.
            series, self._begun = self._begun, None
            return SeriesBegin(series, _announced(header))
        series = self._integer(header, "series")
        if kind.startswith("dheader-"):
            self._begun = series
            return SeriesBegin(series, _announced(self._json(parts[1])) if len(parts) > 1 else None)
        if kind.startswith("dseries_end-"):
            return SeriesEnd(series)
        if kind.startswith("dimage-") or "frame" in header:
            number = self._integer(header, "frame")
            try:
                return Frame(series, number, self._image(parts, number))
            except InputError as error:
                return UnreadableFrame(series, number, str(error))
        raise InputError(
            f"{self._url}: a message of type {kind or 'unknown'}, expected DECTRIS Stream v1: dheader-1.0, dimage-1.0 "
            "or dseries_end-1.0"
        )

    def _image(self, parts: list[bytes], number: int) -> np.ndarray:
        where = f"{self._url}: frame {number}"
        if len(parts) < 3:
            raise InputError(f"{where} has {len(parts)} parts, expected header, description and data")
        description = self._json(parts[1])
        shape, kind = description.get("shape"), description.get("type")
        if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) for n in shape)):
            raise InputError(f"{where} has shape {shape}, expected [columns, rows]")
        if kind not in _TYPES:
            raise InputError(f"{where} is {kind}, expected one of {', '.join(_TYPES)}")
        encoding = str(description.get("encoding", ""))
        name, order = (encoding[:-1], encoding[-1]) if encoding[-1:] in ("<", ">") else (encoding, "")
        dtype = np.dtype(_ORDERS[order] + _TYPES[kind])
        codecs = {"": "none", "lz4": "lz4", f"bs{8 * dtype.itemsize}-lz4": "bslz4"}
        if name not in codecs:
            raise InputError(
                f"{where} is encoded as {encoding!r}, expected bs{8 * dtype.itemsize}-lz4<, lz4< or <"
            )
        return decoded(parts[2], codecs[name], (shape[1], shape[0]), dtype, where)

    def _json(self, part: bytes) -> dict[str, Any]:
        try:
            content = json.loads(part)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{self._url}: a part of {len(part)} bytes that is no JSON, expected DECTRIS Stream v1"
            ) from error
        if not isinstance(content, dict):
            raise InputError(f"{self._url}: JSON that is no object, expected DECTRIS Stream v1")
        return content

    def _integer(self, header: dict[str, Any], key: str) -> int:
        value = header.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{self._url}: {key} is {value!r}, expected a whole number in the header")
        return value


def _announced(configuration: dict[str, Any]) -> int | None:
    """Number of frames in the detector's configuration, if the header has it."""
    images, triggers = configuration.get("nimages"), configuration.get("ntrigger", 1)
    return images * triggers if isinstance(images, int) and isinstance(triggers, int) else None
