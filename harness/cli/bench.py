"""`ptychonnx bench`: speed of artifacts against their networks in the frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from ptychonnx.harness.bench.speed import measure_speed
from ptychonnx.harness.bench.speed_report import SpeedReport, check_earlier, write_report
from ptychonnx.harness.cli.console import output, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.cli.shared_options import Artifacts, read_if_set
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.inference import DEFAULT_BATCH

__all__ = ["bench"]


@derive_options
def bench(
    artifacts: Artifacts,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            help="Run folder of an artifact, to measure its network in its own framework; may be given several times.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Patterns per run of a network.")] = DEFAULT_BATCH,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each kind, taken alternately.")] = 30,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of every network; all processors if not set.")
    ] = None,
    reduced: Annotated[
        bool, typer.Option(help="Also make, judge and measure artifacts of lower precision.")
    ] = True,
    judge_on: Annotated[
        Path | None,
        typer.Option(
            help="Scan to judge lower precisions on, with its known object if it has one; the held-out patterns if "
            "not set."
        ),
    ] = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="Result of benchmarks/end_to_end.py, whose two ratios are added to the JSON file."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", "--out", help="JSON file for the figures.")] = None,
    *,
    reading: ReadOptions,
) -> None:
    """Measure the **speed** of artifacts on the CPU. Servers and networks under load: `ptychonnx loadtest`.

    Each artifact is compared with its network in its own framework (`--run`), eager and compiled, with its 8-bit form,
    and with a large matrix product on the same threads. All of them are measured alternately, each framework in a
    process of its own, and ratios are taken within a round.

    Example: `ptychonnx bench models/*.onnx --run runs/pinn_cnn --run runs/pinn_fno --json bench.json`
    """
    if judge_on is not None and not reduced:
        raise InputError("--judge-on: lower precisions are not measured, expected no --no-reduced with it")
    if pipeline is not None and out is None:
        raise InputError("--pipeline: is added to a JSON file, expected --json FILE with it")
    judged_on = read_if_set(judge_on, reading, "--judge-on")
    if out is not None:
        check_earlier(out, pipeline)
    with report_progress() as progress:
        report = measure_speed(
            artifacts,
            run or (),
            batch=batch,
            rounds=rounds,
            threads=threads,
            reduced=reduced,
            judged_on=judged_on,
            progress=progress,
        )
    if out is not None:
        write_report(report, out, pipeline)
    output.print(_table(report))


def _table(report: SpeedReport) -> Table:
    """One row per form of each artifact."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=f"{escape(report.processor)}, {report.threads} threads, batches of {report.batch}, "
        f"{report.rounds} rounds",
        title_justify="left",
        title_style="",
        caption=(
            "artifact: time relative to the artifact, quartiles in brackets; compiled: speed relative to the best "
            "compiled form of the framework; GEMM: fraction of the rate of a large float32 matrix product that the "
            "artifact reaches, counted by the operations of the network as trained, and as executed; denormal: share "
            "of denormal numbers among the constants, and among the values that are computed from a pattern, which the "
            "session flushes to zero"
        ),
        caption_justify="left",
    )
    table.add_column("network", overflow="fold")
    table.add_column("form")
    for title in ("ms per pattern", "artifact", "compiled", "difference"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for name, artifact in report.artifacts.items():
        trained, executed = artifact.gemm_fraction, artifact.gemm_fraction_executed
        gemm = f"GEMM {executed:.2f}" if trained is None else f"GEMM {trained:.2f}, {executed:.2f}"
        if artifact.denormal_constants is not None and artifact.denormal_intermediates is not None:
            gemm += f"; denormal {artifact.denormal_constants:.1%}, {artifact.denormal_intermediates:.1%}"
        for number, (form, speed) in enumerate(artifact.forms.items()):
            low, high = speed.over_artifact_spread
            notes = {"artifact": gemm, **artifact.judged}
            table.add_row(
                "" if number else escape(name),
                escape(form),
                f"{speed.milliseconds:.2f}",
                f"{speed.over_artifact:.2f} ({low:.2f}, {high:.2f})",
                "" if speed.speedup_compiled is None else f"{speed.speedup_compiled:.2f}",
                f"{speed.relative_error:.0e}",
                escape(notes.get(form, "wrong" if speed.right is False else "")),
            )
        for form, verdict in artifact.judged.items():
            if form not in artifact.forms:
                table.add_row("", escape(form), "", "", "", "", escape(verdict))
        table.add_section()
    return table
