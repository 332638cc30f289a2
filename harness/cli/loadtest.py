"""`ptychonnx loadtest`: latency and throughput of networks under load, on this machine and on servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from ptychonnx.harness.bench.load_figure import load_figure
from ptychonnx.harness.bench.load_test import LoadPoint, load_report, measure_load
from ptychonnx.harness.cli.console import output, report_progress
from ptychonnx.harness.cli.model_options import Omit, derive_options
from ptychonnx.harness.cli.shared_options import OptionalArtifacts, ServerUrls, check_inference
from ptychonnx.runtime.atomic import atomic_path, write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.inference import Predictor, Session, tuned
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.inference.remote.server_options import ServerOptions, remote_sessions

__all__ = ["loadtest"]


@derive_options
def loadtest(
    scan: Annotated[Path, typer.Option(help="Scan whose patterns are sent, repeatedly.")],
    artifacts: OptionalArtifacts = None,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Number of clients; may be given several times. Default: 1, 2, 4 and 8."),
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001,
            help="Patterns per second that arrive at fixed times, as from a detector; may be given several times.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of one measurement, in seconds.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each network under each load.")] = 3,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of an artifact; chosen by onnxruntime if not set.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", "--out", help="JSON file for the figures.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG file for a chart of the figures.")] = None,
    server: ServerUrls = None,
    *,
    inference: InferenceOptions,
    connection: Annotated[ServerOptions, Omit("in_flight", "patience")],
    reading: ReadOptions,
) -> None:
    """Measure the latency of networks under **load**, on this machine and on servers.

    Each client sends a request as soon as the one before is answered, which shows the largest throughput of a network.
    With `--rate`, patterns also arrive at fixed times, and latency counts from the moment at which they were due.
    Networks are measured alternately, in one run.

    Example: `ptychonnx loadtest models/pinn_fno.onnx --server grpc://127.0.0.1:8001/pinn_fno --scan test.npz`
    """
    if not artifacts and not server:
        raise InputError("loadtest: got no network, expected artifacts or --server URL")
    check_inference(inference, server, artifacts)
    clients, rates = concurrency or (1, 2, 4, 8), rate or ()
    patterns = read_scan(scan, options=reading)
    # Nothing is sent again: a load that a server cannot sustain is a result.
    if server:
        connection = connection.model_copy(update={"in_flight": 1, "patience": 0.0})
    with remote_sessions(server or [], connection) as remote:
        local = [Session(artifact, inference.provider, threads) for artifact in artifacts or []]
        batches: int | list[int] = inference.batch or []
        if inference.batch is None:
            choices = [tuned(session, patterns) for session in local]
            local, batches = [session for session, _ in choices], [batch for _, batch in choices]
        networks: list[Predictor] = [*local, *remote]
        with report_progress() as progress:
            points = measure_load(
                networks,
                patterns,
                concurrency=clients,
                rates=rates,
                batch=batches,
                seconds=seconds,
                rounds=rounds,
                progress=progress,
            )
    if out is not None:
        write_text(out, load_report(points, patterns, seconds, rounds))
    if picture is not None:
        with atomic_path(picture) as partial:
            partial.write_bytes(load_figure(points))
    output.print(_table(points))


def _table(points: list[LoadPoint]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("clients", justify="right")
    table.add_column("offered", justify="right")
    table.add_column("network", overflow="fold")
    for title in ("requests", "median ms", "90% ms", "99% ms", "longest ms", "patterns/s"):
        table.add_column(title, justify="right", no_wrap=True)
    for point in points:
        times = (point.median_ms, point.p90_ms, point.p99_ms, point.longest_ms)
        table.add_row(
            str(point.concurrency),
            "" if point.offered is None else f"{point.offered:g}",
            escape(point.network),
            str(point.requests),
            *(f"{value:.1f}" for value in times),
            f"{point.patterns_per_second:.0f}",
        )
    return table
