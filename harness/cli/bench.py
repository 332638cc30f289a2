"""`ptychonnx bench`: load on networks, here and on servers, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from harness.bench import LoadPoint, to_json
from harness.bench import bench as run_bench
from harness.cli.console import output, progress_bar
from harness.cli.options import Batch
from harness.cli.reading import note
from harness.cli.servers import (
    Ca,
    Certificate,
    ContractArtifacts,
    Key,
    ServerOptions,
    Timeout,
    TokenFile,
    remote_sessions,
)
from harness.report.load import load_figure
from runtime.atomic import atomic_path, write_text
from runtime.errors import InputError
from runtime.formats import read_scan
from runtime.network import DEFAULT_BATCH, Network
from runtime.providers import Provider
from runtime.session import Session
from runtime.tuning import tuned

__all__ = ["bench"]


def bench(
    scan: Annotated[Path, typer.Option(help="Scan whose patterns are sent.")],
    artifacts: Annotated[
        list[Path] | None, typer.Argument(help="ONNX artifacts to run in this process.")
    ] = None,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Clients at a time; may be given several times. 1, 2, 4, 8 if not given."),
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001,
            help="Patterns a second that arrive by the clock, done or not; may be given several times.",
        ),
    ] = None,
    batch: Batch = DEFAULT_BATCH,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of one measurement.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each kind, taken in turns.")] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw them to this PNG.")] = None,
    provider: Annotated[Provider, typer.Option(help="Where artifacts run.")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of onnxruntime in this process; its own choice if not given."),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            rich_help_panel="Server",
            help="Network on a server, see `ptychonnx reconstruct --help`; may be given several times.",
        ),
    ] = None,
    contract: ContractArtifacts = None,
    timeout: Timeout = 30.0,
    tls_ca: Ca = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    token_file: TokenFile = None,
) -> None:
    """Put networks under **load**: latency and throughput against the number of clients, or the offered rate.

    Each client asks again as soon as it is answered: what a network can do at most. With `--rate`, patterns also
    arrive by a detector's clock, and latency counts from the moment at which they were due. Networks are measured in
    turns, in one run.

    Example: `ptychonnx bench models/pinn_fno.onnx --server grpc://127.0.0.1:8001/pinn_fno --scan test.npz`
    """
    if not artifacts and not server:
        raise InputError("bench: got no network, expected artifacts or --server URL")
    if server and batch is None:
        raise InputError("--batch auto: is for artifacts, expected a number with --server")
    clients = list(concurrency or (1, 2, 4, 8))
    # Nothing is sent again here: a load that a server does not bear is a result.
    options = ServerOptions(contract, 1, timeout, 0.0, tls_ca, tls_cert, tls_key, token_file)
    with remote_sessions(server or [], options) as remote:
        local = [Session(path, provider, threads) for path in artifacts or []]
        loaded = read_scan(scan)
        batches: int | list[int] = batch or []
        if batch is None:
            choices = [tuned(session, loaded, log=note) for session in local]
            local, batches = [session for session, _ in choices], [size for _, size in choices]
        networks: list[Network] = [*local, *remote]
        with progress_bar() as bar:
            loads = len(clients) + len(rate or ())
            task = bar.add_task("Measuring", total=len(networks) * loads * rounds)
            points = run_bench(
                networks,
                loaded,
                concurrency=clients,
                rates=rate or (),
                batch=batches,
                seconds=seconds,
                rounds=rounds,
                progress=lambda: bar.update(task, advance=1),
            )
    if out is not None:
        write_text(out, to_json(points, loaded, seconds, rounds))
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
            point.network,
            str(point.requests),
            *(f"{value:.1f}" for value in times),
            f"{point.patterns_per_second:.0f}",
        )
    return table
