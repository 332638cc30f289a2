"""Encoders that send JSON over ZeroMQ, or write a table that grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import numpy as np
import zmq
from numpy.typing import NDArray

from ptychonnx.harness.replay.zeromq_sender import bound_socket, send

__all__ = ["JsonSender", "PositionSender", "TableWriter"]

_CHANNELS = ("/INENC3.VAL.Value", "/INENC2.VAL.Value")


class PositionSender(Protocol):
    """Receives samples [m, 2] (row, column) in pixels, in order; `first` is the number of the first of them."""

    def begin(self) -> None:
        """The scan begins."""

    def send(self, first: int, samples: NDArray[np.float64]) -> None:
        """Send samples."""

    def end(self, frames: int) -> None:
        """The scan has ended after so many frames."""

    def close(self) -> None:
        """Close, once everything has been sent."""


class JsonSender:
    """A PUSH socket with messages as of a PandA box."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._socket = bound_socket(address, zmq.PUSH, timeout)

    def begin(self) -> None:
        """The scan begins."""
        self._send({"msg_type": "start"})

    def send(self, first: int, samples: NDArray[np.float64]) -> None:
        """Send samples."""
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
        """The scan has ended."""
        self._send({"msg_type": "stop", "emitted_frames": frames})

    def close(self) -> None:
        """Close, once everything has been sent."""
        self._socket.close()

    def _send(self, message: dict) -> None:
        send(self._socket, [json.dumps(message).encode()], self._address)


class TableWriter:
    """A text file with a line for each sample."""

    def __init__(self, path: Path, samples: int) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._samples = samples

    def begin(self) -> None:
        """The scan begins."""
        self._file.write("frame,x_px,y_px\n")
        self._file.flush()

    def send(self, first: int, samples: NDArray[np.float64]) -> None:
        """Append samples."""
        for index, (row, column) in enumerate(samples.tolist(), first):
            self._file.write(f"{index // self._samples},{column!r},{row!r}\n")
        self._file.flush()

    def end(self, frames: int) -> None:
        """The scan has ended."""
        self._file.write("# end\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
