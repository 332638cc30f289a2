"""Failed requests, classified alike for HTTP and gRPC."""

from __future__ import annotations

from typing import Literal

from ptychonnx.runtime.errors import ServerError

__all__ = ["Kind", "RequestFailure"]

Kind = Literal["unreachable", "unavailable", "timeout", "missing", "forbidden", "untrusted", "refused"]

# Inference is idempotent, so a request may be repeated even if the server may have run it.
_TRANSIENT = {"unreachable", "unavailable", "timeout"}

# The reason comes from the server.
_LONGEST_REASON = 500


class RequestFailure(ServerError):
    """One failed attempt.

    `kind`: ``unreachable``: no connection, or it broke. ``unavailable``: the server is busy or starting. ``timeout``:
    no answer in time. ``missing``: unknown model, version or method. ``forbidden``: token missing or rejected.
    ``untrusted``: the server's certificate was rejected. ``refused``: everything else.
    """

    def __init__(self, kind: Kind, reason: object) -> None:
        lines = str(reason).strip().splitlines()
        line = lines[0][:_LONGEST_REASON] if lines else type(reason).__name__
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in line))
        self.kind = kind

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in _TRANSIENT
