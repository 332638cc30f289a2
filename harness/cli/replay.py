"""`ptychonnx replay`: a detector for the desk."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import print_lines, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.replay.replay import ReplayOptions, ScanCounts
from ptychonnx.harness.replay.replay import replay as run_replay
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan

__all__ = ["replay"]

_logger = logging.getLogger("ptychonnx.harness.replay")


class Protocol(StrEnum):
    """Protocols of frames."""

    ZMQ = "zmq"
    STREAM2 = "stream2"
    SWMR = "swmr"
    PVA = "pva"


@derive_options
def replay(
    scan: Annotated[Path, typer.Argument(help="Scan file of any known format.")],
    protocol: Annotated[
        Protocol,
        typer.Option(
            "--as",
            help="Protocol of the frames: zmq is DECTRIS Stream v1, swmr an HDF5 file that grows, "
            "pva the PV ptychonnx:image.",
        ),
    ] = Protocol.ZMQ,
    frames: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT|FILE", help="Address at which frames are served; with swmr, the HDF5 file."
        ),
    ] = "127.0.0.1:9999",
    positions: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT|FILE",
            help="Address at which positions are served as JSON over ZeroMQ, or a .csv file that grows.",
        ),
    ] = "127.0.0.1:8888",
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=1e6, metavar="SECONDS", help="How long to wait for a receiver, in seconds."
        ),
    ] = 60.0,
    *,
    options: ReplayOptions,
    reading: ReadOptions,
) -> None:
    """Send a scan as if it were being **measured**: frames at a fixed rate, positions in pixels, faults on request.

    Example: `ptychonnx replay scan.npz --as zmq --rate 500 --positions-late 700`

    and in another terminal: `ptychonnx live zoo:pinn_hybrid --frames zmq://127.0.0.1:9999
    --positions zmq://127.0.0.1:8888 --positions-unit px --probe scan.npz --out object.h5`
    """
    from ptychonnx.harness.replay.detectors import open_detector, open_encoders

    source = read_scan(scan, options=reading)
    if ScanCounts(source).rounded:
        _logger.warning(
            "%s: amplitudes are no square roots of whole numbers; the counts that are sent are rounded", scan
        )
    detector = open_detector(protocol.value, frames, options, timeout)
    try:
        encoders = open_encoders(positions, options, timeout)
    except InputError:
        detector.close()
        raise
    try:
        with report_progress() as progress:
            progress.stage(f"Replaying {source.name}", len(source), "frames")
            sent = run_replay(source, detector, encoders, options, progress)
    finally:
        detector.close()
        encoders.close()
    text = f"{sent.frames} frames in {sent.seconds:.2f} s, {sent.frames / sent.seconds:.0f} per second"
    if sent.duplicates:
        text += f", {sent.duplicates} of them twice"
    if sent.dropped:
        text += f"; dropped: {len(sent.dropped)} ({', '.join(map(str, sent.dropped[:12]))}"
        text += ", ...)" if len(sent.dropped) > 12 else ")"
    print_lines(text)
