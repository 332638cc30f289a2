"""A server of EPICS PV Access with one image PV."""

from __future__ import annotations

import threading
import time

from numpy.typing import NDArray
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV

from ptychonnx.runtime.errors import InputError, ServerError

__all__ = ["PVAServer"]

# The value at connection is left out by receivers; they get it before the first frame.
_SETTLE_SECONDS = 0.5


class PVAServer:
    """The PV ``ptychonnx:image``, whose `uniqueId` counts from 1 as in areaDetector."""

    def __init__(self, address: str, timeout: float) -> None:
        host, _, port = address.rpartition(":")
        self._address, self._timeout = address, timeout
        self._connected = threading.Event()
        self._type = NTNDArray()
        # Without a type of its own it takes whole structures, in which we set the number.
        self._pv = SharedPV(handler=_Handler(self._connected))
        settings = {
            "EPICS_PVAS_INTF_ADDR_LIST": host,
            "EPICS_PVAS_SERVER_PORT": port,
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        }
        try:
            self._server = Server(providers=[{"ptychonnx:image": self._pv}], conf=settings, useenv=False)
        except RuntimeError as error:
            raise InputError(f"{address}: cannot be served ({error}), expected HOST:PORT") from error

    def begin(self, frames: int) -> None:
        """PV Access has no beginning of a series; the first frame waits for a receiver."""

    def send(self, number: int, image: NDArray) -> None:
        """Post one frame."""
        if not self._pv.isOpen():
            self._pv.open(self._type.wrap(image * 0))
            if not self._connected.wait(self._timeout):
                raise ServerError(f"{self._address}: no receiver takes the stream, expected `ptychonnx live`")
            time.sleep(_SETTLE_SECONDS)
        value = self._type.wrap(image)
        value["uniqueId"] = number + 1
        self._pv.post(value)

    def end(self) -> None:
        """PV Access has no end of a series."""

    def close(self) -> None:
        """Stop to serve, once the last frame had time to leave."""
        time.sleep(_SETTLE_SECONDS)
        self._server.stop()


class _Handler:
    def __init__(self, connected: threading.Event) -> None:
        self._connected = connected

    def onFirstConnect(self, pv: SharedPV) -> None:
        self._connected.set()
