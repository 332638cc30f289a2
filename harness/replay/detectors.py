"""Detectors by protocol, and encoders by address."""

from __future__ import annotations

from pathlib import Path

from ptychonnx.harness.replay.position_senders import JsonSender, PositionSender, TableWriter
from ptychonnx.harness.replay.replay import Detector
from ptychonnx.harness.replay.replay_options import ReplayOptions
from ptychonnx.harness.replay.stream1_detector import Stream1Detector
from ptychonnx.harness.replay.stream2_detector import Stream2Detector
from ptychonnx.harness.replay.swmr_writer import SwmrWriter
from ptychonnx.runtime.errors import InputError

__all__ = ["open_detector", "open_encoders"]


def open_detector(protocol: str, address: str, options: ReplayOptions, timeout: float) -> Detector:
    """A detector that waits for a receiver at HOST:PORT, or writes a file.

    Raises
    ------
    InputError
        If the address cannot be served.
    """
    if protocol == "swmr":
        return SwmrWriter(Path(address))
    if protocol == "pva":
        # p4p loads libraries of EPICS, which only this protocol needs.
        from ptychonnx.harness.replay.pva_server import PVAServer

        return PVAServer(address, timeout)
    if protocol == "stream2":
        return Stream2Detector(address, options.series, timeout)
    return Stream1Detector(address, options.series, timeout)


def open_encoders(target: str, options: ReplayOptions, timeout: float) -> PositionSender:
    """Encoders that serve HOST:PORT, or write a .csv file.

    Raises
    ------
    InputError
        If the address cannot be served, or the file not be written.
    """
    if Path(target).suffix != ".csv":
        return JsonSender(target, timeout)
    try:
        return TableWriter(Path(target), options.samples)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error
