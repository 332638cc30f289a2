"""Server authentication: TLS certificates and bearer token."""

from __future__ import annotations

import io
import os
import select
import ssl
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.paths import check_file

__all__ = ["TOKEN_VARIABLE", "Credentials", "read_token"]

TOKEN_VARIABLE = "PTYCHONNX_SERVER_TOKEN"
# Tokens have some kilobytes at most.
_LONGEST = 2**16
# Seconds to wait for the program that writes a token into a pipe.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Credentials:
    """TLS files and a bearer token, all optional.

    * `ca`: PEM file of trusted certificates; None uses those of the system.
    * `certificate`, `key`: PEM files that identify the client; both or neither.
    * `token`: sent as ``Authorization: Bearer``. It never appears in messages or in `repr`.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)

    def check(self, address: Address) -> None:
        """Refuse credentials that cannot work with an address, or would not be safe.

        Raises InputError if a file is missing or invalid, TLS files are combined with a connection without TLS, or a
        token would be sent over a network unencrypted.
        """
        files = {"CA": self.ca, "certificate": self.certificate, "key": self.key}
        for kind, path in files.items():
            if path is not None:
                check_file(path, f"the TLS {kind} in PEM form")
        if (self.certificate is None) != (self.key is None):
            raise InputError(f"{address}: got only one of TLS certificate and key, expected both")
        if any(files.values()) and not address.encrypted:
            raise InputError(
                f"{address}: TLS files for a connection without TLS, expected grpcs:// or https://"
            )
        if address.encrypted:
            self._try_files(address)
        if self.token is not None and not address.encrypted and not address.loopback:
            raise InputError(f"{address}: would send the token unencrypted, expected grpcs:// or https://")

    def _try_files(self, address: Address) -> None:
        """Load the files here, since the errors of the client libraries differ and span several lines."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            files = ", ".join(str(path) for path in (self.ca, self.certificate, self.key) if path is not None)
            raise InputError(f"{address}: TLS files {files} cannot be used ({error})") from error

    def headers(self) -> dict[str, str]:
        """Headers of a request: a new dict per call, since tritonclient changes it; lower case, as gRPC requires."""
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}


def _no_password() -> str:
    """Replaces OpenSSL's password prompt on the terminal."""
    raise ValueError("the key is encrypted, expected one without a password")


def read_token(file: str | Path | None = None) -> str | None:
    """Read the token from a file, or else from the variable ``PTYCHONNX_SERVER_TOKEN``; None without either.

    The file may be a pipe, into which another program writes the token.

    Raises InputError if the file cannot be read or does not contain a token, or if nobody writes into the pipe. The
    message does not repeat its content.
    """
    if file is not None:
        try:
            text, where = _content(Path(file)).decode("ascii"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read as a token ({type(error).__name__})") from None
    elif TOKEN_VARIABLE in os.environ:
        text, where = os.environ[TOKEN_VARIABLE], TOKEN_VARIABLE
    else:
        return None
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{where}: contains no token, expected one word of printable characters")
    return token


def _content(path: Path) -> bytes:
    """Bytes of a file or a pipe, which end within a time and a size."""
    # Opening a pipe waits for a program that writes into it, unless it is opened like this.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    content, deadline = b"", time.monotonic() + _PATIENCE
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while len(content) <= _LONGEST:
            left = max(0.0, deadline - time.monotonic())
            if _is_pipe(file) and not select.select([file], [], [], left)[0]:
                if content:
                    return content
                raise InputError(f"{path}: nothing was written into it for {_PATIENCE:g} s, expected a token")
            if not (block := file.read(_LONGEST)):
                return content
            content += block
    raise InputError(f"{path}: longer than {_LONGEST} bytes, expected a token")


def _is_pipe(file: io.FileIO) -> bool:
    return stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
