"""`ptychonnx live`: the object grows while the scan runs."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptychonnx.harness.cli.console import print_lines, print_misfit, report_progress
from ptychonnx.harness.cli.model_options import Omit, derive_options
from ptychonnx.harness.cli.shared_options import ServerUrl, check_inference
from ptychonnx.harness.view.live_view import LiveView
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.formats.readers.probe import read_probe
from ptychonnx.runtime.formats.writers.reconstruction_file import (
    ENDINGS_OF_TILES,
    check_product,
    write_reconstruction,
)
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Session
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.inference.remote.server_options import ServerOptions, remote_sessions
from ptychonnx.runtime.live.detector_mask import read_mask
from ptychonnx.runtime.live.events import FrameSource, PositionSource
from ptychonnx.runtime.live.live_options import LiveOptions
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries, LiveReconstruction, warm_up
from ptychonnx.runtime.live.live_run import LiveRun, Observer
from ptychonnx.runtime.live.live_settings import LiveSettings, check_network
from ptychonnx.runtime.live.sources import check_apart, open_frames, open_positions
from ptychonnx.runtime.progress import Progress
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions

if TYPE_CHECKING:
    from ptychonnx.harness.view.page_server import PageServer

__all__ = ["live"]

_logger = logging.getLogger("ptychonnx.harness.live")

# Of a batch at a beamline: what people see lags by up to three.
_SLOW_BATCH_SECONDS = 0.5
_FILES_ONLY = (
    *("mapping", "companion", "average_positions", "ignore_extra_positions"),
    *("raster", "raster_step", "external_links"),
)


@derive_options
def live(
    frames: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Detector: zmq://host:port is DECTRIS Stream v1, stream2:// Stream2, both from PUSH sockets; "
            "zmq+sub:// and stream2+sub:// from PUB; swmr+file:///FILE an HDF5 file that is being written; "
            "pva://host:port/PV?first=1 an NTNDArray of areaDetector.",
        ),
    ],
    positions: Annotated[
        str,
        typer.Option(
            metavar="URL|FILE",
            help="Encoders: zmq:// or zmq+sub://host:port, JSON messages; pva://host:port/PV, a table; "
            "swmr+file:///FILE?x=PATH&y=PATH or a .csv file that grows; raster://ROWSxCOLUMNS?step=STEP, a plan.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File for the object: .h5 (ptychodus product) or .cxi.")],
    artifact: Annotated[
        Path | None,
        typer.Argument(
            parser=artifact_path,
            help="ONNX artifact or zoo:NAME; left out with --server.",
            show_default=False,
        ),
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            help="File with the probe (NPZ, NPY, ptychodus, CXI, ptypy, MATLAB 7.3); its power is scaled to the mean "
            "photons per pattern."
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="NPY or TIFF file with the mask of the detector, nonzero = valid.")
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve a page that shows the growing object; addresses other than loopback need the token in the URL "
            "that is printed.",
        ),
    ] = None,
    server: ServerUrl = None,
    *,
    streams: LiveOptions,
    inference: InferenceOptions,
    stitching: Annotated[ReconstructOptions, Omit("strict")],
    connection: ServerOptions,
    reading: Annotated[ReadOptions, Omit(*_FILES_ONLY)],
) -> None:
    """Reconstruct **while the scan runs**: frames and positions are joined by number, and the object grows.

    The object that is written is, bit for bit, that of the finished scan with the same batch. An interruption writes
    what there is.

    Example: `ptychonnx live zoo:pinn_hybrid --frames zmq://detector:9999 --positions zmq+sub://panda:8888
    --positions-unit um --pixel-size 8e-9 --probe probe.npy --out object.h5`
    """
    servers = [server] if server else []
    if (artifact is None) == (server is None):
        raise InputError("live: expected one network, an artifact or --server URL")
    check_inference(inference, servers)
    check_apart(frames, positions)
    check_product(out)
    if out.suffix not in ENDINGS_OF_TILES:
        raise InputError(f"{out}: a scan may become too large for it, expected .h5 or .cxi")
    settings = LiveSettings(
        reading=reading,
        stitching=stitching,
        probe=None if probe is None else read_probe(probe),
        mask=None if mask is None else read_mask(mask),
        batch=inference.batch or DEFAULT_BATCH,
        interpolate=streams.interpolate,
        source=frames,
    )
    with ExitStack() as stack:
        networks: list[Predictor] = [] if artifact is None else [Session(artifact, inference.provider)]
        networks += stack.enter_context(remote_sessions(servers, connection))
        (network,) = networks
        check_network(network, settings)
        seconds = warm_up(network, settings)
        if seconds > _SLOW_BATCH_SECONDS and settings.batch > 1:
            _logger.warning(
                "a batch of %d patterns takes %.1f s, and a frame waits for up to three: a smaller --batch lags less",
                settings.batch,
                seconds,
            )
        progress = stack.enter_context(report_progress())
        progress.stage(f"Waiting for {frames}", None, "patterns")
        page = None
        if view is not None:
            page = LiveView(frames)
            print_lines(f"{stack.enter_context(_page_server(view, page)).url} shows the object")

        written: set[Path] = set()

        def finished(series: FinishedSeries) -> None:
            path = out if streams.series == 1 else out.with_stem(f"{out.stem}-{series.series}")
            if path in written:
                # The detector has started again and counts its series anew.
                path = out.with_stem(f"{path.stem}-again-{len(written)}")
            written.add(path)
            write_reconstruction(path, series.reconstruction, series.scan, network.contract)
            _report(path, series, network, settings.batch)

        sources = _open_sources(frames, positions)
        run = LiveRun(network, *sources, settings, streams, finished, _observer(progress, page), seconds)
        with _terminated_like_interrupted(), run:
            run.run()
        if page is not None:
            page.wait_for_browsers()


def _page_server(address: str, page: LiveView) -> PageServer:
    try:
        from ptychonnx.harness.view.page_server import PageServer
    except ModuleNotFoundError as error:
        raise InputError(
            f"--view: needs the package {error.name}, expected: pip install 'ptychonnx[live]'"
        ) from error
    return PageServer(address, page)


def _open_sources(frames: str, positions: str) -> tuple[FrameSource, PositionSource]:
    frame_source = open_frames(frames)
    try:
        return frame_source, open_positions(positions)
    except InputError:
        frame_source.close()
        raise


def _observer(progress: Progress, page: LiveView | None) -> Observer:
    """Progress by series, and the page if there is one."""
    stage = ""

    def observe(current: LiveReconstruction, waiting: int) -> None:
        nonlocal stage
        if current.series_name != stage:
            stage = current.series_name
            progress.stage(f"Reconstructing {stage}", None, "patterns")
        progress.update(current.placed)
        if page is not None:
            page.update(current, waiting, final=current.finished)

    return observe


def _report(path: Path, series: FinishedSeries, network: Predictor, batch: int) -> None:
    rows, columns = series.reconstruction.stitched.shape
    print_lines(
        f"{path}: {rows} x {columns} pixels from {series.reconstruction.patterns} patterns on {network.provider} in "
        f"batches of {batch}, weighting {series.reconstruction.weighting}"
    )
    warnings = series.report.warnings()
    for line in series.report.lines():
        if line not in warnings:
            print_lines(line)
    for line in warnings:
        _logger.warning("%s", line)
    if series.reconstruction.skipped:
        print_lines(series.reconstruction.skipped_text)
    print_misfit(series.reconstruction, _logger)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, by which a scheduler ends a process, as an interruption from the keyboard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
