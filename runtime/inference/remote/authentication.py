"""By what right a server is asked: certificates and a bearer token."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.remote.address import Address

__all__ = ["TOKEN_VARIABLE", "Access", "read_token"]

TOKEN_VARIABLE = "PTYCHONNX_SERVER_TOKEN"


@dataclass(frozen=True)
class Access:
    """TLS files and a token; nothing of it is needed for a server without either.

    Attributes
    ----------
    ca
        PEM file with the certificates that are trusted; the system's own if None.
    certificate, key
        PEM files by which the client shows who it is; both or none.
    token
        Sent as ``Authorization: Bearer``. It appears in no message and in no `repr`.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)

    def check(self, address: Address) -> None:
        """Refuse what would not work or would not be safe with this address.

        Raises
        ------
        InputError
            If a file is missing or cannot be used, TLS files are given for a connection without TLS, or a
            token would cross a network in the clear.
        """
        files = {"CA": self.ca, "certificate": self.certificate, "key": self.key}
        for kind, path in files.items():
            if path is not None and not path.is_file():
                raise InputError(f"{path}: no such file, expected the TLS {kind} in PEM form")
        if (self.certificate is None) != (self.key is None):
            raise InputError(f"{address}: got a TLS certificate or a key alone, expected both")
        if any(files.values()) and not address.encrypted:
            raise InputError(
                f"{address}: TLS files for a connection without TLS, expected grpcs:// or https://"
            )
        if address.encrypted:
            self._try_files(address)
        if self.token is not None and not address.encrypted and not address.loopback:
            raise InputError(f"{address}: would send the token in the clear, expected grpcs:// or https://")

    def _try_files(self, address: Address) -> None:
        """Load the files once, here: the client libraries say neither in one voice nor in one line what is wrong."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            given = ", ".join(str(path) for path in (self.ca, self.certificate, self.key) if path is not None)
            raise InputError(f"{address}: TLS files {given} cannot be used ({error})") from error

    def headers(self) -> dict[str, str]:
        """A new dict at each call, since the client library writes into it. Lower case, as gRPC demands."""
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}


def _no_password() -> str:
    """Instead of a question on the terminal."""
    raise ValueError("the key wants a password, expected one without")


def read_token(file: Path | None = None) -> str | None:
    """The token in a file, or else in the environment variable ``PTYCHONNX_SERVER_TOKEN``; None without either.

    Raises
    ------
    InputError
        If the file cannot be read, or what it holds is no token. The message does not repeat it.
    """
    if file is not None:
        try:
            text, where = file.read_text(encoding="ascii"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read as a token ({type(error).__name__})") from None
    elif TOKEN_VARIABLE in os.environ:
        text, where = os.environ[TOKEN_VARIABLE], TOKEN_VARIABLE
    else:
        return None
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{where}: holds no token, expected one word of printable characters")
    return token
