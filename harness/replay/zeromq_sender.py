"""ZeroMQ sockets that a replay binds."""

from __future__ import annotations

import zmq

from ptychonnx.runtime.errors import InputError, ServerError

__all__ = ["bound_socket", "send"]

# High-water mark of a sender: messages in its memory before it waits.
_MESSAGES_AHEAD = 64
_LINGER_MS = 30_000


def bound_socket(address: str, kind: int, timeout: float) -> zmq.Socket[bytes]:
    """A socket that waits for a receiver, at most `timeout` seconds for each message.

    Raises
    ------
    InputError
        If the address is none, or in use.
    """
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.SNDHWM, _MESSAGES_AHEAD)
    socket.setsockopt(zmq.SNDTIMEO, int(1000 * timeout))
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
    try:
        socket.bind(f"tcp://{address}")
    except zmq.ZMQError as error:
        socket.close(0)
        raise InputError(f"{address}: cannot be served ({error}), expected HOST:PORT that is free") from error
    return socket


def send(socket: zmq.Socket[bytes], parts: list[bytes], address: str) -> None:
    """Send a message.

    Raises
    ------
    ServerError
        If no receiver takes it in time.
    """
    try:
        socket.send_multipart(parts)
    except zmq.Again as error:
        raise ServerError(f"{address}: no receiver takes the stream, expected `ptychonnx live`") from error
