"""Sources that receive over ZeroMQ, from URLs such as `zmq://detector:9999`."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import zmq

from ptychonnx.runtime.errors import InputError

__all__ = ["ZeroMQSource"]

# High-water mark of the socket: messages in its own memory before it stops taking more from the network.
_MESSAGES_AHEAD = 64
# A message larger than this closes the connection: the largest detectors have 18 million pixels of 4 bytes.
_LARGEST_MESSAGE = 2**27


class ZeroMQSource:
    """A source of events, see `ptychonnx.runtime.live.events`, that arrive as messages.

    The socket is PULL, or SUB if the scheme ends in ``+sub``. PULL exerts back-pressure on the sender. A sender with
    PUB drops messages at its own high-water mark.
    """

    def __init__(self, url: str) -> None:
        """Connect; the sender may start later.

        Raises InputError if the URL has no host and port.
        """
        self._url, parts = url, urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"{url}: {error}, expected {parts.scheme}://host:port") from error
        if host is None or port is None:
            raise InputError(f"{url}: no host and port, expected {parts.scheme}://host:port")
        address = f"tcp://{f'[{host}]' if ':' in host else host}:{port}"
        subscribes = parts.scheme.endswith("+sub")
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB if subscribes else zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, _MESSAGES_AHEAD)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_MESSAGE)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        if subscribes:
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._socket.close()
            raise InputError(f"{url}: cannot connect to {address} ({error})") from error

    def receive(self, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                left = deadline - time.monotonic()
                if left <= 0 or not self._socket.poll(int(1000 * left) + 1):
                    return None
            else:
                if (event := self._event(parts)) is not None:
                    return event

    def close(self) -> None:
        self._socket.close()

    def _event(self, parts: list[bytes]) -> Any:
        """The event in the parts of a message, or None if there is none."""
        raise NotImplementedError
