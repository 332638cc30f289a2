"""Options of the commands that may run a network on a server, and the sessions that they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.shared_options import with_options
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.remote import Credentials, RemoteSession
from ptychonnx.runtime.inference.remote.authentication import TOKEN_VARIABLE, read_token

__all__ = [
    "Ca",
    "Certificate",
    "ContractArtifacts",
    "Key",
    "ServerOptions",
    "Timeout",
    "TokenFile",
    "remote_sessions",
    "with_connection",
]

_PANEL = "Server"

ContractArtifacts = Annotated[
    list[Path] | None,
    typer.Option(
        "--contract",
        metavar="ARTIFACT",
        rich_help_panel=_PANEL,
        help="ONNX artifact whose contract holds where the server publishes none; one for each --server.",
    ),
]
InFlight = Annotated[
    int, typer.Option(min=1, rich_help_panel=_PANEL, help="Requests that may be on their way at once.")
]
Timeout = Annotated[
    float,
    typer.Option(min=0.001, rich_help_panel=_PANEL, help="Seconds in which a request must be answered."),
]
Patience = Annotated[
    float,
    typer.Option(min=0, rich_help_panel=_PANEL, help="Seconds in which a request that failed is sent again."),
]
Ca = Annotated[
    Path | None,
    typer.Option("--tls-ca", rich_help_panel=_PANEL, help="PEM file with the authorities that are trusted."),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--tls-cert", rich_help_panel=_PANEL, help="PEM file with the client's certificate."),
]
Key = Annotated[
    Path | None, typer.Option("--tls-key", rich_help_panel=_PANEL, help="PEM file with the client's key.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_PANEL, help=f"File with a bearer token; without it, the variable {TOKEN_VARIABLE}."
    ),
]


@dataclass(frozen=True)
class ServerOptions:
    """What the options above were set to; see `ptychonnx.runtime.inference.remote.RemoteSession`."""

    artifacts: Sequence[Path] | None = None
    in_flight: int = 4
    timeout: float = 30.0
    patience: float = 60.0
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token_file: Path | None = None


def _connection(
    contract: ContractArtifacts = None,
    in_flight: InFlight = 4,
    timeout: Timeout = 30.0,
    patience: Patience = 60.0,
    tls_ca: Ca = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    token_file: TokenFile = None,
) -> ServerOptions:
    return ServerOptions(contract, in_flight, timeout, patience, tls_ca, tls_cert, tls_key, token_file)


# A command gets them as one argument `connection: ServerOptions`.
with_connection = with_options("connection", _connection)


@contextmanager
def remote_sessions(urls: Sequence[str], options: ServerOptions) -> Iterator[list[RemoteSession]]:
    """A session for each URL, closed at the end.

    Raises
    ------
    InputError
        If there are artifacts for the contracts, but not as many as servers; or a session cannot be had.
    """
    artifacts: list[Path | None] = list(options.artifacts or [])
    if artifacts and len(artifacts) != len(urls):
        raise InputError(
            f"got {len(artifacts)} --contract for {len(urls)} --server, expected none or one for each"
        )
    with ExitStack() as stack:
        sessions = []
        if urls:
            credentials = Credentials(
                options.ca, options.certificate, options.key, read_token(options.token_file)
            )
        for url, artifact in zip(urls, artifacts or [None] * len(urls), strict=True):
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
