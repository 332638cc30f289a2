"""`ptychonnx evaluate`: any number of artifacts on any number of scans, judged alike."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import errors, output, progress_bar
from ptychonnx.harness.cli.scan_options import note, with_reading
from ptychonnx.harness.cli.server_options import ServerOptions, remote_sessions, with_connection
from ptychonnx.harness.cli.shared_options import Batch
from ptychonnx.harness.evaluation.evaluate import evaluate as run_evaluation
from ptychonnx.harness.evaluation.results import Evaluation
from ptychonnx.harness.iterative.rpie import ALPHA
from ptychonnx.harness.report import comparison_table
from ptychonnx.harness.report.table_formats import as_csv, as_markdown
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.contract import Placement, Weighting
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.inference import DEFAULT_BATCH, Provider
from ptychonnx.runtime.progress import Callback

__all__ = ["evaluate"]

_MACHINES = "For other programs"


@with_reading
@with_connection
def evaluate(
    scan: Annotated[list[Path], typer.Option(help="Scan to evaluate on; may be given several times.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for metrics.json, pictures and report.html; needless with --json, --csv or --markdown."
        ),
    ] = None,
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
        bool | None,
        typer.Option(
            "--synchronise/--no-synchronise",
            help="Turn each patch by one phase so that all agree where they overlap; the artifact's own if not given.",
        ),
    ] = None,
    plane: Annotated[bool, typer.Option(help="Remove a phase ramp before comparing.")] = False,
    register: Annotated[bool, typer.Option(help="Remove a sub-pixel shift before comparing.")] = False,
    ptychopinn: Annotated[bool, typer.Option(help="Also report PtychoPINN's own definitions.")] = False,
    iterations: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="Add a row: an iterative reconstruction (rPIE) of K epochs from vacuum. Needs ptychonnx[iterative].",
        ),
    ] = 0,
    refine: Annotated[
        int,
        typer.Option(min=0, metavar="K", help="Add a row for each network: K epochs from its object."),
    ] = 0,
    alpha: Annotated[
        float,
        typer.Option(
            metavar="A",
            help="Of the iterations, above 0: the smaller, the faster, and the more noise; 1 is ePIE.",
        ),
    ] = ALPHA,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Shell script whose commands the report lists, instead of this one alone."),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", rich_help_panel=_MACHINES, help="What metrics.json holds; - for standard output."
        ),
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_MACHINES,
            help="One line an artifact and scan; - for standard output.",
        ),
    ] = None,
    markdown: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_MACHINES,
            help="Table for a paper or a README; - for standard output.",
        ),
    ] = None,
    provider: Annotated[Provider, typer.Option(help="Where to run; auto takes the best there is.")] = "auto",
    batch: Batch = DEFAULT_BATCH,
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

    For a README: `ptychonnx evaluate models/*.onnx --scan test.npz --markdown - >> README.md`

    On a server: `ptychonnx evaluate --server grpc://127.0.0.1:8001/pinn_fno --scan test.npz --out report/`
    """
    exports = _exports(json, csv, markdown)
    if out is None and not exports:
        raise InputError("got nothing to write, expected --out, --json, --csv or --markdown")
    if reference and len(reference) != len(scan):
        raise InputError(f"got {len(reference)} references for {len(scan)} scans, expected one for each")
    if server and batch is None:
        raise InputError("--batch auto: is for artifacts, expected a number with --server")
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
            iterations=iterations,
            refine=refine,
            alpha=alpha,
            plane=plane,
            register=register,
            ptychopinn=ptychopinn,
            commands=_commands(recipe),
            progress=Callback(
                lambda step: bar.update(
                    task, description=step.stage, completed=step.done, total=step.total, visible=True
                )
            ),
        )
    # Standard output belongs to the data if they are wanted there.
    console = errors if "-" in exports else output
    console.print(comparison_table(evaluation, console.width))
    for row in evaluation.rows:
        for scan_name, result in row.results.items():
            if result.requests is not None:
                console.print(f"{row.label}, {scan_name}: {result.requests}", soft_wrap=True)
    for target, form in exports.items():
        if target == "-":
            sys.stdout.write(form(evaluation))
        else:
            write_text(Path(target), form(evaluation))
    if out is not None:
        console.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def _exports(
    json: str | None, csv: str | None, markdown: str | None
) -> dict[str, Callable[[Evaluation], str]]:
    """What to write where; refused before anything runs if two go to one place or one to a folder."""
    found: dict[str, Callable[[Evaluation], str]] = {}
    for name, target, form in (
        ("--json", json, Evaluation.to_json),
        ("--csv", csv, as_csv),
        ("--markdown", markdown, as_markdown),
    ):
        if target is None:
            continue
        if target in found:
            place = "standard output" if target == "-" else target
            raise InputError(f"{name} {target}: another form goes to {place} already, expected one for each")
        if target != "-" and Path(target).is_dir():
            raise InputError(f"{name} {target}: is a folder, expected a file to write to or -")
        found[target] = form
    return found


def _commands(recipe: Path | None) -> list[str]:
    """What the report says about how to reproduce it."""
    if recipe is None:
        return [shlex.join(["ptychonnx", *sys.argv[1:]])]
    try:
        lines = recipe.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{recipe}: cannot be read as a shell script ({error})") from error
    return [line for line in lines if line.startswith("ptychonnx ")]
