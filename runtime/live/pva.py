"""Sources that watch a PV of EPICS PV Access, from URLs such as `pva://host:port/NAME`.

The value that a PV has when we connect is that of the scan before, and is left out. PV Access drops updates when a
client is slow; the numbers of what was in them are reported as missing.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from typing import Any
from urllib.parse import unquote, urlsplit

from p4p.client.thread import Context, Disconnected

from ptychonnx.runtime.errors import InputError, first_line

__all__ = ["PVMonitor"]

# Updates that wait, in memory, before PV Access drops some.
_UPDATES_AHEAD = 256


class PVMonitor:
    """A source of events, see `ptychonnx.runtime.live.events`, from the updates of one PV.

    `pva:///NAME` asks the servers that the EPICS environment variables name; with a port the server
    is searched over TCP, without one over UDP.
    """

    _example = "pva://host:port/NAME"

    def __init__(self, url: str) -> None:
        """Connect; the server may start later.

        Raises InputError if the URL has no name, or a port that is none.
        """
        self._url, parts = url, urlsplit(url)
        name = unquote(parts.path.lstrip("/"))
        if not name:
            raise InputError(f"{url}: no name of a PV, expected {self._example}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"{url}: {error}, expected {self._example}") from error
        self._updates: queue.Queue[Any] = queue.Queue(_UPDATES_AHEAD)
        self._pending: deque[Any] = deque()
        self._stale = True
        self._heard = time.monotonic()
        # Servers of pvAccessCPP do not answer searches over TCP.
        search = {"EPICS_PVA_NAME_SERVERS": f"{host}:{port}"} if port else {"EPICS_PVA_ADDR_LIST": host}
        own = {**search, "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
        self._context = Context("pva", conf=own, useenv=False, nt=False) if host else Context("pva", nt=False)
        self._monitor = self._context.monitor(
            name,
            self._updates.put,
            request=f"record[queueSize={_UPDATES_AHEAD}]field()",
            notify_disconnect=True,
        )

    def receive(self, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while not self._pending:
            try:
                update = self._updates.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return self._quiet(time.monotonic() - self._heard)
            if isinstance(update, Exception):
                # The next value is that of the connection again.
                self._stale = True
                if not isinstance(update, Disconnected):
                    raise InputError(f"{self._url}: {first_line(update)}") from update
            elif self._stale:
                self._stale = False
            else:
                self._heard = time.monotonic()
                self._pending.extend(self._events(update))
        return self._pending.popleft()

    def close(self) -> None:
        self._monitor.close()
        # A callback that waits for room must not keep the context open.
        while not self._updates.empty():
            self._updates.get_nowait()
        self._context.close()

    def _events(self, update: Any) -> list[Any]:
        """The events in an update."""
        raise NotImplementedError

    def _quiet(self, seconds: float) -> Any:
        """The event that follows when nothing has come for so many seconds; None if there is none."""
        return None
