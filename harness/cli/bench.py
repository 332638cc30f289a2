"""`ptychonnx bench`: speed against the native networks, or load on networks here and on servers; in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from ptychonnx.harness.bench.load_figure import load_figure
from ptychonnx.harness.bench.load_test import LoadPoint, load_report, measure_load
from ptychonnx.harness.bench.speed import measure_speed
from ptychonnx.harness.bench.speed_report import SpeedReport, write_report
from ptychonnx.harness.cli.console import output, progress_bar
from ptychonnx.harness.cli.scan_options import note, read_if_given, with_reading
from ptychonnx.harness.cli.server_options import (
    Ca,
    Certificate,
    ContractArtifacts,
    Key,
    ServerOptions,
    Timeout,
    TokenFile,
    remote_sessions,
)
from ptychonnx.harness.cli.shared_options import Batch
from ptychonnx.runtime.atomic import atomic_path, write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Provider, Session, tuned
from ptychonnx.runtime.progress import Callback

__all__ = ["bench"]

_SPEED_ROUNDS, _LOAD_ROUNDS = 30, 3


@with_reading
def bench(
    artifacts: Annotated[
        list[Path] | None, typer.Argument(help="ONNX artifacts to run on this machine.")
    ] = None,
    batch: Batch = DEFAULT_BATCH,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Measurements of each kind, taken in turns. 30 for speed, 3 for load."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", "--out", help="JSON file for the figures.")] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            rich_help_panel="Speed",
            help="Run folder of an artifact, to measure its network in its own framework; may be given several times.",
        ),
    ] = None,
    reduced: Annotated[
        bool,
        typer.Option(rich_help_panel="Speed", help="Also make, judge and measure forms of lower precision."),
    ] = True,
    judge_on: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Speed",
            help="Scan to judge lower precisions on, by its known object if there is one; held-out patterns if not "
            "given.",
        ),
    ] = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Speed",
            help="Result of benchmarks/end_to_end.py, whose two ratios go into the same JSON file.",
        ),
    ] = None,
    scan: Annotated[
        Path | None,
        typer.Option(rich_help_panel="Load", help="Scan whose patterns are sent; load is measured."),
    ] = None,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            rich_help_panel="Load",
            help="Clients at a time; may be given several times. 1, 2, 4, 8 if not given.",
        ),
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001,
            rich_help_panel="Load",
            help="Patterns a second that arrive by the clock, done or not; may be given several times.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, rich_help_panel="Load", help="Length of one measurement.")
    ] = 1.0,
    picture: Annotated[
        Path | None, typer.Option(rich_help_panel="Load", help="Also draw the figures to this PNG.")
    ] = None,
    provider: Annotated[Provider, typer.Option(help="Where artifacts run.")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads. If not given: for speed all processors, for load onnxruntime's own choice."
        ),
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
    *,
    reading: ReadOptions,
) -> None:
    """Measure the **speed** of artifacts, or with `--scan` the latency of networks under **load**.

    *Speed*, on the CPU: each artifact against its network in its own framework (`--run`), eager and compiled, against
    its 8-bit form, and against a large matrix product on the same threads. All forms take turns, each framework in a
    process of its own, and the ratios within a round count.

    *Load*: each client asks again as soon as it is answered, which shows what a network can do at most. With
    `--rate`, patterns also arrive by a detector's clock, and latency counts from the moment at which they were due.
    Networks are measured in turns, in one run.

    Example: `ptychonnx bench models/*.onnx --run runs/pinn_cnn --run runs/pinn_fno --json bench.json`

    Example: `ptychonnx bench models/pinn_fno.onnx --server grpc://127.0.0.1:8001/pinn_fno --scan test.npz`
    """
    if not artifacts and not server:
        raise InputError("bench: got no network, expected artifacts or --server URL")
    loaded = read_if_given(scan, reading)
    if loaded is None:
        if server or concurrency or rate or picture is not None or provider not in ("auto", "cpu"):
            raise InputError("bench: load is measured with the patterns of a scan, expected --scan FILE")
        if batch is None:
            raise InputError("--batch auto: is for load, expected a number without --scan")
        report = measure_speed(
            artifacts or (),
            run or (),
            batch=batch,
            rounds=rounds or _SPEED_ROUNDS,
            threads=threads,
            reduced=reduced,
            judged_on=read_if_given(judge_on, reading),
            progress=Callback(lambda step: None if step.done else note(step.stage)),
        )
        if out is not None:
            write_report(report, out, pipeline)
        output.print(_speed_table(report))
        return
    if run or pipeline is not None or judge_on is not None:
        raise InputError(
            "bench: --run, --judge-on and --pipeline measure speed, --scan measures load; expected one of them"
        )
    rounds = rounds or _LOAD_ROUNDS
    if server and batch is None:
        raise InputError("--batch auto: is for artifacts, expected a number with --server")
    clients = list(concurrency or (1, 2, 4, 8))
    # Nothing is sent again here: a load that a server does not bear is a result.
    options = ServerOptions(contract, 1, timeout, 0.0, tls_ca, tls_cert, tls_key, token_file)
    with remote_sessions(server or [], options) as remote:
        local = [Session(path, provider, threads) for path in artifacts or []]
        batches: int | list[int] = batch or []
        if batch is None:
            choices = [tuned(session, loaded, log=note) for session in local]
            local, batches = [session for session, _ in choices], [size for _, size in choices]
        networks: list[Predictor] = [*local, *remote]
        with progress_bar() as bar:
            loads = len(clients) + len(rate or ())
            task = bar.add_task("Measuring", total=len(networks) * loads * rounds)
            points = measure_load(
                networks,
                loaded,
                concurrency=clients,
                rates=rate or (),
                batch=batches,
                seconds=seconds,
                rounds=rounds,
                progress=Callback(lambda step: bar.update(task, completed=step.done)),
            )
    if out is not None:
        write_text(out, load_report(points, loaded, seconds, rounds))
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


def _speed_table(report: SpeedReport) -> Table:
    """A line for each form of each artifact, then what follows from them."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=f"{report.processor}, {report.threads} threads, batches of {report.batch}, {report.rounds} rounds",
        title_justify="left",
        title_style="",
        caption=(
            "artifact: how many times as long as the artifact, quartiles in brackets; compiled: how many times as fast "
            "as the best compiled form of the framework; GEMM: part of the rate of a large float32 matrix product "
            "that the artifact reaches, counted by the operations of the network as trained, and as executed"
        ),
        caption_justify="left",
    )
    table.add_column("network", overflow="fold")
    table.add_column("form")
    for title in ("ms a pattern", "artifact", "compiled", "difference"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for name, artifact in report.artifacts.items():
        trained, executed = artifact.gemm_fraction, artifact.gemm_fraction_executed
        gemm = f"GEMM {executed:.2f}" if trained is None else f"GEMM {trained:.2f}, {executed:.2f}"
        for number, (form, speed) in enumerate(artifact.forms.items()):
            low, high = speed.over_artifact_spread
            notes = {"artifact": gemm, **artifact.judged}
            table.add_row(
                "" if number else name,
                form,
                f"{speed.milliseconds:.2f}",
                f"{speed.over_artifact:.2f} ({low:.2f}, {high:.2f})",
                "" if speed.speedup_compiled is None else f"{speed.speedup_compiled:.2f}",
                f"{speed.relative_error:.0e}",
                notes.get(form, "wrong" if speed.right is False else ""),
            )
        for form, verdict in artifact.judged.items():
            if form not in artifact.forms:
                table.add_row("", form, "", "", "", "", verdict)
        table.add_section()
    return table
