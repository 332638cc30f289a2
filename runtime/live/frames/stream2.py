"""DECTRIS Stream2, and the stream of Jungfraujoch: CBOR messages over ZeroMQ.

`stream2://host:port` receives from a PUSH socket, `stream2+sub://host:port` from a PUB socket. Detectors with several
thresholds send several channels: `?channel=threshold_2` chooses another than the first.
"""

from __future__ import annotations

from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.live.codecs import decoded
from ptychonnx.runtime.live.events import Frame, FrameEvent, SeriesBegin, SeriesEnd, UnreadableFrame
from ptychonnx.runtime.live.source_url import SourceOptions, source_options
from ptychonnx.runtime.live.zeromq import ZeroMQSource

__all__ = ["Stream2"]

# Tags of RFC 8746: arrays of several dimensions, and typed arrays.
_ARRAY = 40
_TYPES = {64: "u1", 65: ">u2", 66: ">u4", 69: "<u2", 70: "<u4", 77: "<i2", 78: "<i4", 85: "<f4"}
# DECTRIS's own: [algorithm, size of an element, bytes].
_COMPRESSED = 56500


class _Options(SourceOptions):
    channel: str | None = None


class Stream2(ZeroMQSource):
    """A detector that sends Stream2, see `ptychonnx.runtime.live.events.FrameSource`."""

    def __init__(self, url: str) -> None:
        self._channel = source_options(url, _Options).channel
        super().__init__(url)

    def _event(self, parts: list[bytes]) -> FrameEvent | None:
        part = parts[-1]
        try:
            message = cbor2.loads(part)
            kind, series = message["type"], message["series_id"]
            number = message["image_id"] if kind == "image" else 0
        except Exception as error:  # hostile bytes raise many types
            raise InputError(
                f"{self._url}: a message of {len(part)} bytes that is no CBOR with type and series_id "
                f"({first_line(error)}), expected Stream2"
            ) from error
        if not all(isinstance(value, int) and value >= 0 for value in (series, number)):
            raise InputError(f"{self._url}: series_id {series!r} and image_id {number!r}, expected numbers")
        if kind == "start":
            frames = message.get("number_of_images")
            return SeriesBegin(series, frames if isinstance(frames, int) else None)
        if kind == "end":
            return SeriesEnd(series)
        if kind != "image":
            # Jungfraujoch sends calibration and metadata too.
            return None
        try:
            return Frame(series, number, self._image(message, f"{self._url}: frame {number}"))
        except InputError as error:
            return UnreadableFrame(series, number, str(error))

    def _image(self, message: dict[str, Any], where: str) -> NDArray:
        channels = message.get("data")
        if not isinstance(channels, dict) or not channels:
            raise InputError(f"{where} has no data, expected a channel such as threshold_1")
        name = self._channel or next(iter(channels))
        if name not in channels:
            raise InputError(f"{where} has no channel {name}, expected one of {', '.join(channels)}")
        array = channels[name]
        if isinstance(array, np.ndarray):
            return array
        try:
            shape, typed = array.value if _tag(array) == _ARRAY else array
            rows, columns = (int(side) for side in shape)
            dtype = np.dtype(_TYPES[typed.tag])
            content = typed.value
            if _tag(content) == _COMPRESSED:
                content = content.value
            algorithm, size, data = (
                ("none", dtype.itemsize, content) if isinstance(content, bytes) else content
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{where}: {first_line(error)}, expected [shape, typed array]") from error
        if size != dtype.itemsize or not isinstance(data, bytes):
            raise InputError(f"{where}: elements of {size} bytes, expected {dtype.itemsize} for {dtype}")
        return decoded(data, str(algorithm), (rows, columns), dtype, where)


def _tag(value: object) -> int | None:
    return value.tag if isinstance(value, cbor2.CBORTag) else None
