"""URL of a model on a server: ``grpc://host:port/model[/version]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import urlsplit

from ptychonnx.runtime.errors import InputError

__all__ = ["Address"]

Scheme = Literal["grpc", "grpcs", "http", "https"]
_FORM = "expected grpc://host:port/model[/version], grpcs://, http:// or https://"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


@dataclass(frozen=True)
class Address:
    """Scheme, host, port, model and version of a served model.

    `version`: version of the model; if empty, the server chooses.
    """

    scheme: Scheme
    host: str
    port: int
    model: str
    version: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse a URL.

        Raises InputError if the URL has another form, or contains a user, a password, a query or a fragment.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"{url}: {error}, {_FORM}") from error
        if "@" in parts.netloc:
            # The part before the @ may be a secret and is not repeated.
            raise InputError(f"{parts.scheme}://...@{host}: contains a user or a password, {_FORM}")
        path = parts.path.strip("/").split("/")
        if (
            parts.scheme not in {"grpc", "grpcs", "http", "https"}
            or not host
            or not port
            or parts.query
            or parts.fragment
            or len(path) not in {1, 2}
            or not all(_NAME.fullmatch(name) for name in path)
        ):
            raise InputError(f"{url}: not a model URL, {_FORM}")
        return cls(cast(Scheme, parts.scheme), host, port, *path)

    def __str__(self) -> str:
        """The URL."""
        version = f"/{self.version}" if self.version else ""
        return f"{self.scheme}://{self.authority}/{self.model}{version}"

    @property
    def authority(self) -> str:
        """``host:port``, with an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme in {"grpcs", "https"}

    @property
    def loopback(self) -> bool:
        """Whether the server runs on this machine."""
        return _LOOPBACK.fullmatch(self.host) is not None
