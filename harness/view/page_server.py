"""A server for one page, over HTTP and a WebSocket: loopback without a token, other addresses with one."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import secrets
import socket
import threading
from importlib.resources import files
from typing import Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from ptychonnx.harness.view.live_view import SECONDS_PER_COPY, BrowserState, LiveView
from ptychonnx.runtime.errors import InputError

__all__ = ["PageServer"]

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data: blob:"
)
# Connections at the same time, also those that say nothing.
_CONNECTIONS = 64
# A browser that says nothing, or takes no message, for so long is dropped, in seconds.
_SLOWEST = 10.0
# Browsers have nothing to say but what the protocol needs.
_LONGEST_MESSAGE = 1024
_LAST_WORDS_SECONDS = 1.0
# Requests that fail are no matter of the reconstruction.
_silent = logging.getLogger("ptychonnx.harness.view.requests")
_silent.setLevel(logging.CRITICAL + 1)


def _limited() -> type[ServerConnection]:
    """Connections of one server, of which the last are refused while many are open: the reconstruction needs files."""
    opened: set[ServerConnection] = set()

    class Connection(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            opened.add(self)
            if len(opened) > _CONNECTIONS:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            opened.discard(self)
            super().connection_lost(exc)

    return Connection


class PageServer:
    """Serves the page until the `with` block ends.

    `url`: address of the page, with the token if there is one.
    """

    def __init__(self, address: str, view: LiveView) -> None:
        """Bind.

        Raises InputError if the address is invalid, or cannot be served.

        `address`: HOST:PORT; port 0 is any that is free.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            local = host == "localhost" or ipaddress.ip_address(host).is_loopback
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, int(port)), family=family)
        except (ValueError, OSError, OverflowError) as error:
            raise InputError(f"--view {address}: cannot be served ({error}), expected HOST:PORT") from error
        self._view = view
        self._page = files("ptychonnx.harness.view").joinpath("page.html").read_bytes()
        self._token = "" if local else secrets.token_urlsafe(16)
        suffix = f"?token={self._token}" if self._token else ""
        self.url = f"http://{address.rpartition(':')[0]}:{self._socket.getsockname()[1]}/{suffix}"
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="ptychonnx-page", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    async def _serve(self) -> None:
        async with serve(
            self._follow,
            sock=self._socket,
            process_request=self._answer,
            compression=None,
            open_timeout=_SLOWEST,
            ping_interval=_SLOWEST,
            ping_timeout=_SLOWEST,
            close_timeout=_LAST_WORDS_SECONDS,
            max_size=_LONGEST_MESSAGE,
            server_header="ptychonnx",
            create_connection=_limited(),
            logger=_silent,
        ):
            while not self._over.is_set():
                await asyncio.sleep(SECONDS_PER_COPY)

    async def _follow(self, connection: ServerConnection) -> None:
        """Send what has changed; while a browser is slow, changes gather."""
        seen = BrowserState()
        try:
            while connection.state is State.OPEN:
                messages, seen = self._view.changes(seen)
                for message in messages:
                    async with asyncio.timeout(_SLOWEST):
                        await connection.send(message)
                await asyncio.sleep(SECONDS_PER_COPY)
        except (ConnectionClosed, TimeoutError):
            return

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """The page, or a refusal; None lets a WebSocket open."""
        path = urlsplit(request.path).path
        if not self._is_allowed(request):
            return _response(403, "text/plain", b"expected the address that ptychonnx live printed\n")
        if path == "/":
            return _response(200, "text/html; charset=utf-8", self._page)
        return None if path == "/changes" else _response(404, "text/plain", b"not here\n")

    def _is_allowed(self, request: Request) -> bool:
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        # A page from elsewhere may open a WebSocket to this one.
        if len(hosts) != 1 or any(urlsplit(origin).netloc != hosts[0] for origin in origins):
            return False
        if self._token:
            token = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
            return hmac.compare_digest(token.encode(), self._token.encode())
        # Other names that lead to this machine may belong to a page that attacks it.
        host = urlsplit(f"//{hosts[0]}").hostname or ""
        return host == "localhost" or host == "::1" or host.startswith("127.")


def _response(code: int, kind: str, content: bytes) -> Response:
    headers = Headers(
        {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Connection": "close",
        }
    )
    return Response(code, {200: "OK", 403: "Forbidden", 404: "Not Found"}[code], headers, content)
