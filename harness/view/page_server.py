"""A small HTTP server for one page: loopback without a token, other addresses with one."""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

from ptychonnx.harness.view.live_view import PICTURES, LiveView
from ptychonnx.runtime.errors import InputError

__all__ = ["PageServer"]

_PICTURES = {f"/{name}.png": name for name in PICTURES}
_POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'"
)
# Connections at the same time; a browser opens six.
_CONNECTIONS = 64
# A browser that reads slower than this is dropped, in seconds.
_SLOWEST = 10.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._free = threading.BoundedSemaphore(_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Refuse further connections while many are open: files of the reconstruction need descriptors too."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""


class PageServer:
    """Serves the page until the `with` block ends.

    Attributes
    ----------
    url
        Address of the page, with the token if there is one.
    """

    def __init__(self, address: str, view: LiveView) -> None:
        """Bind.

        Parameters
        ----------
        address
            HOST:PORT; port 0 is any that is free.

        Raises
        ------
        InputError
            If the address is none, or cannot be served.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            local = host == "localhost" or ipaddress.ip_address(host).is_loopback
            self._token = "" if local else secrets.token_urlsafe(16)
            self._server = _Server((host, int(port)), _handler(view, self._token, local))
        except (ValueError, OSError, OverflowError) as error:
            raise InputError(f"--view {address}: cannot be served ({error}), expected HOST:PORT") from error
        suffix = f"?token={self._token}" if self._token else ""
        self.url = f"http://{address.rpartition(':')[0]}:{self._server.server_address[1]}/{suffix}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="ptychonnx-page", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(view: LiveView, token: str, local: bool) -> type[BaseHTTPRequestHandler]:
    page = files("ptychonnx.harness.view").joinpath("page.html").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        timeout = _SLOWEST
        # Without connections that stay open: they would outlive the server, and take the places of other browsers.
        protocol_version = "HTTP/1.0"
        server_version, sys_version = "ptychonnx", ""
        types: ClassVar[dict[str, str]] = {"/": "text/html; charset=utf-8", "/state": "application/json"}

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if not self._is_allowed(parse_qs(parts.query)):
                self._answer(403, "text/plain", b"expected the address that ptychonnx live printed\n")
            elif parts.path == "/":
                self._answer(200, self.types["/"], page)
            elif parts.path == "/state":
                self._answer(200, self.types["/state"], json.dumps(view.state()).encode())
            elif parts.path in _PICTURES:
                content = view.picture(_PICTURES[parts.path])
                self._answer(204 if content is None else 200, "image/png", content or b"")
            else:
                self._answer(404, "text/plain", b"not here\n")

        def _is_allowed(self, query: dict[str, list[str]]) -> bool:
            if token:
                return hmac.compare_digest(query.get("token", [""])[0].encode(), token.encode())
            # Other names that lead to this machine may belong to a page that attacks it.
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            return host == "localhost" or host == "::1" or host.startswith("127.")

        def _answer(self, code: int, kind: str, content: bytes) -> None:
            self.send_response(code)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(content))),
                ("Cache-Control", "no-store"),
                ("Content-Security-Policy", _POLICY),
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Log no requests, which would bury the messages of the reconstruction."""

    return Handler
