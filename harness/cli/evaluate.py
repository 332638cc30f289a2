"""`ptychonnx evaluate`: any number of artifacts on any number of scans, judged alike."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import output, progress_bar
from harness.cli.reading import note, with_reading
from harness.cli.servers import ServerOptions, remote_sessions, with_connection
from harness.evaluate import comparison_table
from harness.evaluate import evaluate as run_evaluation
from runtime.contract import Placement, Weighting
from runtime.errors import InputError
from runtime.formats import ReadOptions, read_scan
from runtime.network import DEFAULT_BATCH
from runtime.providers import Provider

__all__ = ["evaluate"]


@with_reading
@with_connection
def evaluate(
    scan: Annotated[list[Path], typer.Option(help="Scan to evaluate on; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, pictures and report.html.")],
    artifacts: Annotated[
        list[Path] | None, typer.Argument(help="ONNX artifacts; with --server there may be none.")
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="Object to compare with, one for each scan, if the scan has none."),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="NPZ whose `probe`, scaled to the counts, replaces that of the scans.")
    ] = None,
    weighting: Annotated[
        Weighting | None, typer.Option(help="How patches are merged; the contract's own if not given.")
    ] = None,
    placement: Annotated[
        Placement | None,
        typer.Option(help="How patches come to lie between pixels; the contract's own if not given."),
    ] = None,
    synchronise: Annotated[
        bool,
        typer.Option("--synchronise", help="Bring the global phase of each patch to that of its neighbours."),
    ] = False,
    plane: Annotated[bool, typer.Option(help="Remove a phase ramp before comparing.")] = False,
    register: Annotated[bool, typer.Option(help="Remove a sub-pixel shift before comparing.")] = False,
    ptychopinn: Annotated[bool, typer.Option(help="Also report PtychoPINN's own definitions.")] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Shell script whose commands the report lists, instead of this one alone."),
    ] = None,
    provider: Annotated[Provider, typer.Option(help="Where to run; auto takes the best there is.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Patterns in one run of the network.")] = DEFAULT_BATCH,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            rich_help_panel="Server",
            help="Network on a server: grpc://host:port/model[/version], grpcs://, http:// or https://. "
            "May be given several times, and beside artifacts.",
        ),
    ] = None,
    *,
    reading: ReadOptions,
    connection: ServerOptions,
) -> None:
    """Reconstruct, compare with the known object, and write **one report** for all networks.

    Example: `ptychonnx evaluate models/*.onnx --scan data/lines/test.npz --out report/`

    On a server: `ptychonnx evaluate --server grpc://127.0.0.1:8001/pinn_fno --scan test.npz --out report/`
    """
    if reference and len(reference) != len(scan):
        raise InputError(f"got {len(reference)} references for {len(scan)} scans, expected one for each")
    references: list[Path | None] = list(reference) if reference else [None] * len(scan)
    loaded = [
        read_scan(path, reference=known, probe=probe, options=reading, log=note)
        for path, known in zip(scan, references, strict=True)
    ]
    with remote_sessions(server or [], connection) as remote, progress_bar() as bar:
        task = bar.add_task("Evaluating", total=None, visible=False)
        evaluation = run_evaluation(
            [*(artifacts or []), *remote],
            loaded,
            out,
            provider=provider,
            weighting=weighting,
            placement=placement,
            synchronise=synchronise,
            batch=batch,
            plane=plane,
            register=register,
            ptychopinn=ptychopinn,
            commands=_commands(recipe),
            progress=lambda label, done, total: bar.update(
                task, description=f"Evaluating {label}", completed=done, total=total, visible=True
            ),
        )
    output.print(comparison_table(evaluation))
    for row in evaluation.rows:
        for scan_name, result in row.results.items():
            if result.requests is not None:
                output.print(f"{row.label}, {scan_name}: {result.requests}", soft_wrap=True)
    output.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def _commands(recipe: Path | None) -> list[str]:
    """What the report says about how to reproduce it."""
    if recipe is None:
        return [shlex.join(["ptychonnx", *sys.argv[1:]])]
    try:
        lines = recipe.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{recipe}: cannot be read as a shell script ({error})") from error
    return [line for line in lines if line.startswith("ptychonnx ")]
