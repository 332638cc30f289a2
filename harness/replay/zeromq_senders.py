"""Detectors and encoders that send over ZeroMQ: DECTRIS Stream v1, Stream2, and the JSON of a PandA box."""

from __future__ import annotations

import json
import struct

import bitshuffle
import cbor2
import numpy as np
import zmq
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, ServerError

__all__ = ["JsonSender", "Stream1Detector", "Stream2Detector"]

# High-water mark of a sender: messages in its memory before it waits.
_MESSAGES_AHEAD = 64
_LINGER_MS = 30_000
# Bytes of the frame, and of one block.
_HEADER = struct.Struct(">QI")
_BLOCK_BYTES = 8192
_TAGS = {"uint8": 64, "uint16": 69, "uint32": 70}
_ARRAY, _COMPRESSED = 40, 56500
_CHANNELS = ("/INENC3.VAL.Value", "/INENC2.VAL.Value")


class _Sender:
    """A PUSH socket to which one receiver connects; each message waits for it, at most `timeout` seconds.

    Raises InputError if the address is invalid, or in use.
    """

    def __init__(self, address: str, timeout: float, series: int = 1) -> None:
        port = address.rpartition(":")[2]
        if (
            port.isdecimal() and not 0 < int(port) < 2**16
        ):  # ZeroMQ would take the rest of a division by 65536
            raise InputError(f"{address}: port {port[:20]}, expected HOST:PORT with a port from 1 to 65535")
        self._address, self._series = address, series
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, _MESSAGES_AHEAD)
        self._socket.setsockopt(zmq.SNDTIMEO, int(1000 * timeout))
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        try:
            self._socket.bind(f"tcp://{address}")
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise InputError(
                f"{address}: cannot be served ({error}), expected HOST:PORT that is free"
            ) from error

    def close(self) -> None:
        self._socket.close()

    def _send(self, *parts: dict | bytes) -> None:
        encoded = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
        try:
            self._socket.send_multipart(encoded)
        except zmq.Again as error:
            raise ServerError(
                f"{self._address}: no receiver takes the stream, expected `ptychonnx live`"
            ) from error


class Stream1Detector(_Sender):
    """A detector that sends DECTRIS Stream v1."""

    def begin(self, frames: int) -> None:
        header = {"htype": "dheader-1.0", "series": self._series, "header_detail": "basic"}
        self._send(header, {"nimages": frames, "ntrigger": 1})

    def send(self, number: int, image: NDArray) -> None:
        data = _compressed(image)
        description = {
            "htype": "dimage_d-1.0",
            "shape": list(image.shape[::-1]),
            "type": str(image.dtype),
            "encoding": f"bs{8 * image.itemsize}-lz4<",
            "size": len(data),
        }
        self._send(
            {"htype": "dimage-1.0", "series": self._series, "frame": number, "hash": ""}, description, data
        )

    def end(self) -> None:
        self._send({"htype": "dseries_end-1.0", "series": self._series})


class Stream2Detector(_Sender):
    """A detector that sends Stream2: CBOR."""

    def begin(self, frames: int) -> None:
        self._send_cbor({"type": "start", "number_of_images": frames, "channels": ["threshold_1"]})

    def send(self, number: int, image: NDArray) -> None:
        content = cbor2.CBORTag(_COMPRESSED, ["bslz4", image.itemsize, _compressed(image)])
        array = cbor2.CBORTag(_ARRAY, [list(image.shape), cbor2.CBORTag(_TAGS[str(image.dtype)], content)])
        self._send_cbor({"type": "image", "image_id": number, "data": {"threshold_1": array}})

    def end(self) -> None:
        self._send_cbor({"type": "end"})

    def _send_cbor(self, message: dict) -> None:
        self._send(cbor2.dumps({**message, "series_id": self._series, "series_unique_id": str(self._series)}))


class JsonSender(_Sender):
    """Encoders that send messages as those of a PandA box."""

    def begin(self) -> None:
        self._send({"msg_type": "start"})

    def send(self, first: int, samples: NDArray[np.float64]) -> None:
        sets = {
            name: {
                "dtype": "float64",
                "size": len(samples),
                "starting_sample_number": first,
                "data": axis.tolist(),
            }
            for name, axis in zip(_CHANNELS, samples.T, strict=True)
        }
        self._send({"msg_type": "data", "datasets": sets})

    def end(self, frames: int) -> None:
        self._send({"msg_type": "stop", "emitted_frames": frames})


def _compressed(image: NDArray) -> bytes:
    flat = np.ascontiguousarray(image).reshape(-1)
    blocks = bitshuffle.compress_lz4(flat, _BLOCK_BYTES // flat.itemsize)
    return _HEADER.pack(flat.nbytes, _BLOCK_BYTES) + blocks.tobytes()
