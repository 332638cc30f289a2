"""A detector that sends Stream2: CBOR over ZeroMQ."""

from __future__ import annotations

import struct

import bitshuffle
import cbor2
import numpy as np
import zmq
from numpy.typing import NDArray

from ptychonnx.harness.replay.zeromq_sender import bound_socket, send

__all__ = ["Stream2Detector"]

# Bytes of the frame, and of one block.
_HEADER = struct.Struct(">QI")
_BLOCK_BYTES = 8192
_TAGS = {"uint8": 64, "uint16": 69, "uint32": 70}
_ARRAY, _COMPRESSED = 40, 56500


class Stream2Detector:
    """A PUSH socket to which one receiver connects."""

    def __init__(self, address: str, series: int, timeout: float) -> None:
        self._address, self._series = address, series
        self._socket = bound_socket(address, zmq.PUSH, timeout)

    def begin(self, frames: int) -> None:
        """Send the header of the series; waits for a receiver."""
        self._send({"type": "start", "number_of_images": frames, "channels": ["threshold_1"]})

    def send(self, number: int, image: NDArray) -> None:
        """Send one frame; waits if the receiver holds it back."""
        flat = np.ascontiguousarray(image).reshape(-1)
        compressed = bitshuffle.compress_lz4(flat, _BLOCK_BYTES // flat.itemsize)
        data = _HEADER.pack(flat.nbytes, _BLOCK_BYTES) + compressed.tobytes()
        content = cbor2.CBORTag(_COMPRESSED, ["bslz4", image.itemsize, data])
        array = cbor2.CBORTag(_ARRAY, [list(image.shape), cbor2.CBORTag(_TAGS[str(image.dtype)], content)])
        self._send({"type": "image", "image_id": number, "data": {"threshold_1": array}})

    def end(self) -> None:
        """Send the end of the series."""
        self._send({"type": "end"})

    def close(self) -> None:
        """Close, once everything has been sent."""
        self._socket.close()

    def _send(self, message: dict) -> None:
        content = cbor2.dumps({**message, "series_id": self._series, "series_unique_id": str(self._series)})
        send(self._socket, [content], self._address)
