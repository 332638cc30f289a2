"""`ptychonnx evaluate`: any number of artifacts on any number of scans, compared in the same way."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ptychonnx.harness.campaign.engines import open_engine
from ptychonnx.harness.cli.console import errors, output, print_lines, report_progress
from ptychonnx.harness.cli.many_scans import process_folder, process_watched
from ptychonnx.harness.cli.model_options import Omit, derive_options
from ptychonnx.harness.cli.shared_options import (
    DivisionOptions,
    OptionalArtifacts,
    Probe,
    ServerUrls,
    check_inference,
)
from ptychonnx.harness.evaluation.evaluate import evaluate as run_evaluation
from ptychonnx.harness.evaluation.judge import EvaluateOptions
from ptychonnx.harness.evaluation.many_scans import evaluate_scans
from ptychonnx.harness.evaluation.results import Evaluation
from ptychonnx.harness.evaluation.write import FILES
from ptychonnx.harness.iterative.iteration_options import IterationOptions
from ptychonnx.harness.report.table_formats import as_csv, as_markdown
from ptychonnx.harness.report.terminal_table import comparison_table
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.inference import Predictor
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.inference.remote.server_options import ServerOptions, remote_sessions
from ptychonnx.runtime.paths import read_text
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions

__all__ = ["evaluate"]

_logger = logging.getLogger("ptychonnx.harness.evaluate")

_MACHINES = "Tables for other programs (- is standard output)"


@derive_options
def evaluate(
    scan: Annotated[
        list[Path] | None, typer.Option(help="Scan to evaluate on; may be given several times.")
    ] = None,
    scans: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Many scans, such as 'night/*.cxi': a report each in the folder of --out, and a manifest by which "
            "an interrupted command goes on; or the folder of --watch.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for metrics.json, figures and report.html; optional with --json, --csv or --markdown."
        ),
    ] = None,
    artifacts: OptionalArtifacts = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="Object to compare with, one for each scan, instead of that in the scan file."),
    ] = None,
    objects: Annotated[
        list[str] | None,
        typer.Option(
            "--object",
            metavar="LABEL=FILE",
            help="Object of another program, as a row; several times too.",
        ),
    ] = None,
    probe: Probe = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Shell script that the report lists instead of this command."),
    ] = None,
    json: Annotated[
        str | None, typer.Option(metavar="FILE", rich_help_panel=_MACHINES, help="Content of metrics.json.")
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", rich_help_panel=_MACHINES, help="One line per artifact and scan."),
    ] = None,
    markdown: Annotated[
        str | None,
        typer.Option(metavar="FILE", rich_help_panel=_MACHINES, help="Table for a paper or a README."),
    ] = None,
    server: ServerUrls = None,
    *,
    options: EvaluateOptions,
    inference: InferenceOptions,
    stitching: Annotated[ReconstructOptions, Omit("canvas_memory")],
    iterations: Annotated[IterationOptions, Omit("refine_probe")],
    connection: ServerOptions,
    reading: ReadOptions,
    division: Annotated[DivisionOptions, Omit("shards", "shard")],
) -> None:
    """Reconstruct, compare with the known object, and write **one report** for all networks.

    Example: `ptychonnx evaluate models/*.onnx --scan data/lines/test.npz --out report/`

    For a README: `ptychonnx evaluate models/*.onnx --scan test.npz --markdown - >> README.md`

    On a server: `ptychonnx evaluate --server grpc://HOST:8001/pinn_fno --scan test.npz --out report/`

    Many scans: `ptychonnx evaluate models/*.onnx --scans 'night/*.cxi' --out reports/`
    """
    exports = _exports(json, csv, markdown)
    for target in exports:
        if out is not None and Path(target).resolve() in {(out / name).resolve() for name in FILES}:
            raise InputError(f"{target}: is a file of the report in {out}, expected another name")
    if out is None and not exports:
        raise InputError("got nothing to write, expected --out, --json, --csv or --markdown")
    if bool(scan) == bool(scans):
        raise InputError("evaluate: expected --scan FILE, or --scans PATTERN for many scans")
    scan = scan or []
    if reference and len(reference) != len(scan):
        raise InputError(f"got {len(reference)} references for {len(scan)} scans, expected one for each")
    check_inference(inference, server, artifacts)
    iterations.check_used(run=bool(iterations.refine or iterations.iterations))
    labelled, commands = _labelled(objects or []), _commands(recipe)
    keywords: dict[str, Any] = {
        **stitching.model_dump(exclude={"canvas_memory"}),
        **iterations.model_dump(exclude={"refine_probe"}),
        **asdict(options),
    }
    with remote_sessions(server or [], connection) as remote, ExitStack() as stack:
        networks: list[Path | Predictor] = [*(artifacts or []), *remote]
        if scans:
            paths, folder = _many(scans, out, {**exports, **labelled}, watch=division.watch)
            engine = None
            if division.executor:
                engine = stack.enter_context(open_engine(division.executor, inference.provider))
            process = partial(
                evaluate_scans,
                networks,
                folder=folder,
                inference=inference,
                probe=probe,
                reading=reading,
                options=keywords,
                commands=commands,
                engine=engine,
            )
            (process_watched if division.watch else process_folder)(process, paths, folder)
            return
        for option, is_set in (("--executor", division.executor), ("--watch", division.watch)):
            if is_set:
                raise InputError(f"{option}: is for many scans, expected --scans with it")
        references: list[Path | None] = [*reference] if reference else [None] * len(scan)
        loaded = [
            read_scan(path, reference=known, probe=probe, options=reading)
            for path, known in zip(scan, references, strict=True)
        ]
        with report_progress() as progress:
            evaluation = run_evaluation(
                networks,
                loaded,
                out,
                provider=inference.provider,
                batch=inference.batch,
                objects=labelled,
                commands=commands,
                progress=progress,
                **keywords,
            )
    _print_and_write(evaluation, exports, out)


def _many(
    patterns: list[str], out: Path | None, others: Mapping[str, object], *, watch: bool
) -> tuple[list[Path], Path]:
    """The scans that patterns of names match, or the folder to watch, and the folder for their reports."""
    if out is None or others:
        option = next(iter(others), "no --out")
        raise InputError(
            f"--scans: got {option}, expected --out FOLDER alone, where each scan has its metrics.json"
        )
    paths = []
    if watch:
        if len(patterns) != 1 or not Path(patterns[0]).is_dir():
            raise InputError(f"--watch: got --scans {' '.join(patterns)}, expected one folder that exists")
        return [Path(patterns[0])], out
    for pattern in patterns:
        anchor = Path(pattern).anchor
        matching = sorted(Path(anchor).glob(str(Path(pattern).relative_to(anchor))))
        if not matching:
            raise InputError(f"--scans {pattern}: matches no file, expected scans such as 'night/*.cxi'")
        for path in filter(Path.is_dir, matching):
            raise InputError(
                f"--scans {path}: is a folder, expected scans such as '{path / '*.h5'}', or --watch"
            )
        paths += matching
    return paths, out


def _print_and_write(
    evaluation: Evaluation, exports: Mapping[str, Callable[[Evaluation], str]], out: Path | None
) -> None:
    # Standard output is reserved for the data if a table goes there.
    console = errors if "-" in exports else output
    show = partial(print_lines, console=console)
    console.print(comparison_table(evaluation, console.width))
    for row in evaluation.rows:
        for scan_name, result in row.results.items():
            if result.misfit is not None and result.misfit.verdict != "good":
                _logger.warning("%s, %s: %s", row.label, scan_name, result.misfit)
            if result.position_doubt:
                _logger.warning("%s, %s: %s", row.label, scan_name, result.position_doubt)
            for quantity in ("amplitude", "phase") if result.halves is not None else ():
                frc = getattr(result.halves, quantity).frc
                text = "not defined" if frc is None else frc.text
                show(f"{row.label}, {scan_name}: {quantity} of two halves, FRC {text}")
            if result.requests is not None:
                show(f"{row.label}, {scan_name}: {result.requests}")
    for target, write in exports.items():
        if target == "-":
            sys.stdout.write(write(evaluation))
        else:
            write_text(Path(target), write(evaluation))
    if out is not None:
        show(f"Report: {out / 'report.html'}")
    if evaluation.failures:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in evaluation.failures.items())
        raise VerificationError(
            f"{len(evaluation.failures)} without a row, the others were measured: {reasons}"
        )


def _exports(
    json: str | None, csv: str | None, markdown: str | None
) -> dict[str, Callable[[Evaluation], str]]:
    """The tables to write, by target; two for one target, or one for a folder, are refused before anything runs."""
    exports: dict[str, Callable[[Evaluation], str]] = {}
    for name, target, write in (
        ("--json", json, Evaluation.to_json),
        ("--csv", csv, as_csv),
        ("--markdown", markdown, as_markdown),
    ):
        if target is None:
            continue
        if target in exports:
            place = "standard output" if target == "-" else target
            raise InputError(f"{name} {target}: another table goes to {place}, expected one for each")
        if target != "-" and Path(target).is_dir():
            raise InputError(f"{name} {target}: is a folder, expected a file to write to or -")
        exports[target] = write
    return exports


def _labelled(objects: list[str]) -> dict[str, Path]:
    """Files by label."""
    files: dict[str, Path] = {}
    for text in objects:
        label, separator, name = text.partition("=")
        if not (label and separator and name):
            raise InputError(f"--object {text}: expected LABEL=FILE")
        if label in files:
            raise InputError(
                f"--object {text}: another object is labelled {label!r}, expected labels that differ"
            )
        files[label] = Path(name)
    return files


def _commands(recipe: Path | None) -> list[str]:
    """The commands by which the evaluation can be reproduced, for the report."""
    if recipe is None:
        return [shlex.join(["ptychonnx", *sys.argv[1:]])]
    try:
        lines = read_text(recipe).splitlines()
    except OSError as error:
        raise InputError(f"{recipe}: cannot be read as a shell script ({error.strerror or error})") from error
    return [line for line in lines if line.startswith("ptychonnx ")]
