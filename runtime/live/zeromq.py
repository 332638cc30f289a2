"""ZeroMQ sockets that receive, from URLs such as `zmq://detector:9999`."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import SplitResult, urlsplit

import zmq

from ptychonnx.runtime.errors import InputError

__all__ = ["MESSAGES_AHEAD", "ReceivingSocket", "ZeroMQSource"]

# High-water mark of the socket: messages in its own memory before it stops taking more from the network.
MESSAGES_AHEAD = 64
# A message larger than this closes the connection: the largest detectors have 18 million pixels of 4 bytes.
_LARGEST_MESSAGE = 2**27


class ReceivingSocket:
    """A PULL socket, or a SUB socket if the scheme ends in ``+sub``, that connects to a sender.

    A PULL socket exerts back-pressure on the sender. A sender with PUB drops messages at its own high-water mark.

    Attributes
    ----------
    parts
        The parts of the URL.
    """

    def __init__(self, url: str) -> None:
        """Connect; the sender may start later.

        Raises
        ------
        InputError
            If the URL has no host and port.
        """
        self.parts: SplitResult = urlsplit(url)
        try:
            host, port = self.parts.hostname, self.parts.port
        except ValueError as error:
            raise InputError(f"{url}: {error}, expected {self.parts.scheme}://host:port") from error
        if host is None or port is None:
            raise InputError(f"{url}: no host and port, expected {self.parts.scheme}://host:port")
        self.address = f"tcp://{f'[{host}]' if ':' in host else host}:{port}"
        subscribes = self.parts.scheme.endswith("+sub")
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB if subscribes else zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, MESSAGES_AHEAD)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_MESSAGE)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        if subscribes:
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(self.address)
        except zmq.ZMQError as error:
            self._socket.close()
            raise InputError(f"{url}: cannot connect to {self.address} ({error})") from error

    def receive(self, timeout: float) -> list[bytes] | None:
        """The parts of the next message, or None if there is none within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                left = deadline - time.monotonic()
                if left <= 0 or not self._socket.poll(int(1000 * left) + 1):
                    return None

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()


class ZeroMQSource:
    """A source, see `ptychonnx.runtime.live.events`, whose events arrive as messages."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket = ReceivingSocket(url)

    def receive(self, timeout: float) -> Any:
        while (parts := self._socket.receive(timeout)) is not None:
            if (event := self._event(parts)) is not None:
                return event
        return None

    def close(self) -> None:
        self._socket.close()

    def _event(self, parts: list[bytes]) -> Any:
        """The event in the parts of a message, or None if there is none."""
        raise NotImplementedError
