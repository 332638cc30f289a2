"""Options of the connection to inference servers, and the sessions that they open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.remote.authentication import TOKEN_VARIABLE, Credentials, read_token
from ptychonnx.runtime.inference.remote.remote_session import RemoteSession

__all__ = ["ServerOptions", "remote_sessions"]


class ServerOptions(BaseModel):
    """How to reach the servers of one call; see `ptychonnx.runtime.inference.remote.RemoteSession`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        title="Connection to servers",
        json_schema_extra={
            "help_option": "--help-server",
            "help_subject": "of the connection to servers (TLS, token, time limits)",
        },
    )

    contract: tuple[Path, ...] = Field(
        default=(),
        description="ONNX artifact with the contract of a server that publishes none; one for each --server",
        json_schema_extra={"metavar": "ARTIFACT"},
    )
    in_flight: int = Field(default=4, ge=1, description="Largest number of unanswered requests")
    timeout: float = Field(
        default=30.0, gt=0, le=1e6, description="Seconds to wait for the answer to a request"
    )
    patience: float = Field(
        default=60.0, ge=0, le=1e6, description="Seconds during which failed requests are sent again"
    )
    tls_ca: Path | None = Field(default=None, description="PEM file with the trusted certificate authorities")
    tls_cert: Path | None = Field(default=None, description="PEM file with the client's certificate")
    tls_key: Path | None = Field(default=None, description="PEM file with the client's private key")
    token_file: Path | None = Field(
        default=None, description=f"File with a bearer token; without it, the variable {TOKEN_VARIABLE}"
    )


@contextmanager
def remote_sessions(urls: Sequence[str], options: ServerOptions) -> Iterator[list[RemoteSession]]:
    """Open a session for each URL, and close all of them at the end.

    Raises InputError if artifacts are named for the contracts, but not one for each server, or options are set without
    a server. Raises ServerError if a
    server is unreachable or refuses.
    """
    if not urls and options != ServerOptions():
        name = next(iter(options.model_dump(exclude_defaults=True)))
        raise InputError(
            f"--{name.replace('_', '-')}: is for networks on servers, expected --server URL with it"
        )
    artifacts: Sequence[Path | None] = options.contract or [None] * len(urls)
    if len(artifacts) != len(urls):
        raise InputError(
            f"got {len(artifacts)} --contract for {len(urls)} --server, expected none or one for each"
        )
    with ExitStack() as stack:
        sessions = []
        if urls:
            token = read_token(options.token_file)
            credentials = Credentials(options.tls_ca, options.tls_cert, options.tls_key, token)
        for url, artifact in zip(urls, artifacts, strict=True):
            session = RemoteSession(
                url,
                credentials=credentials,
                artifact=artifact,
                in_flight=options.in_flight,
                timeout=options.timeout,
                patience=options.patience,
            )
            stack.callback(session.close)
            sessions.append(session)
        yield sessions
