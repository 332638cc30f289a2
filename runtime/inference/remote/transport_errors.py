"""What can go wrong between client and server, in the words of neither library."""

from __future__ import annotations

from typing import Literal

__all__ = ["Kind", "ServerFailure"]

Kind = Literal["unreachable", "unavailable", "timeout", "missing", "forbidden", "untrusted", "refused"]

# Inference changes nothing on the server, so a request may be sent again even if it may have been carried out.
_PASSING = {"unreachable", "unavailable", "timeout"}


class ServerFailure(Exception):
    """One attempt that failed.

    Attributes
    ----------
    kind
        ``unreachable``: no connection, or it broke. ``unavailable``: the server says that it cannot now.
        ``timeout``: no answer in time. ``missing``: no such model, version or method. ``forbidden``: token
        missing or not accepted. ``untrusted``: the certificate is not accepted. ``refused``: everything else.
    """

    def __init__(self, kind: Kind, reason: object) -> None:
        lines = str(reason).strip().splitlines()
        super().__init__(lines[0] if lines else type(reason).__name__)
        self.kind = kind

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.kind in _PASSING
