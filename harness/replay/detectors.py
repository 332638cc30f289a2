"""Detectors by protocol, and encoders by address."""

from __future__ import annotations

from pathlib import Path

from ptychonnx.harness.replay.file_writers import SwmrWriter, TableWriter
from ptychonnx.harness.replay.replay import Detector, PositionSender, ReplayOptions
from ptychonnx.harness.replay.zeromq_senders import JsonSender, Stream1Detector, Stream2Detector

__all__ = ["open_detector", "open_encoders"]


def open_detector(protocol: str, address: str, options: ReplayOptions, timeout: float) -> Detector:
    """A detector that waits for a receiver at HOST:PORT, or writes a file.

    Raises InputError if the address cannot be served.
    """
    if protocol == "swmr":
        return SwmrWriter(Path(address))
    if protocol == "pva":
        # p4p loads libraries of EPICS, which only this protocol needs.
        from ptychonnx.harness.replay.pva_server import PVAServer

        return PVAServer(address, timeout)
    return (Stream2Detector if protocol == "stream2" else Stream1Detector)(address, timeout, options.series)


def open_encoders(target: str, options: ReplayOptions, timeout: float) -> PositionSender:
    """Encoders that serve HOST:PORT, or write a .csv file.

    Raises InputError if the address cannot be served, or the file not be written.
    """
    if Path(target).suffix == ".csv":
        return TableWriter(Path(target), options.samples)
    return JsonSender(target, timeout)
