"""A detector that sends DECTRIS Stream v1 over ZeroMQ."""

from __future__ import annotations

import json
import struct

import bitshuffle
import numpy as np
import zmq
from numpy.typing import NDArray

from ptychonnx.harness.replay.zeromq_sender import bound_socket, send

__all__ = ["Stream1Detector"]

# Bytes of the frame, and of one block.
_HEADER = struct.Struct(">QI")
_BLOCK_BYTES = 8192


class Stream1Detector:
    """A PUSH socket to which one receiver connects."""

    def __init__(self, address: str, series: int, timeout: float) -> None:
        self._address, self._series = address, series
        self._socket = bound_socket(address, zmq.PUSH, timeout)

    def begin(self, frames: int) -> None:
        """Send the header of the series; waits for a receiver."""
        header = {"htype": "dheader-1.0", "series": self._series, "header_detail": "basic"}
        self._send([header, {"nimages": frames, "ntrigger": 1}])

    def send(self, number: int, image: NDArray) -> None:
        """Send one frame; waits if the receiver holds it back."""
        flat = np.ascontiguousarray(image).reshape(-1)
        compressed = bitshuffle.compress_lz4(flat, _BLOCK_BYTES // flat.itemsize)
        data = _HEADER.pack(flat.nbytes, _BLOCK_BYTES) + compressed.tobytes()
        description = {
            "htype": "dimage_d-1.0",
            "shape": list(image.shape[::-1]),
            "type": str(image.dtype),
            "encoding": f"bs{8 * image.itemsize}-lz4<",
            "size": len(data),
        }
        self._send(
            [{"htype": "dimage-1.0", "series": self._series, "frame": number, "hash": ""}, description, data]
        )

    def end(self) -> None:
        """Send the end of the series."""
        self._send([{"htype": "dseries_end-1.0", "series": self._series}])

    def close(self) -> None:
        """Close, once everything has been sent."""
        self._socket.close()

    def _send(self, parts: list[dict | bytes]) -> None:
        encoded = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
        send(self._socket, encoded, self._address)
