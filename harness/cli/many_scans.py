"""The part of `ptychonnx reconstruct` that takes several scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ptychonnx.harness.cli.console import output, report_progress
from ptychonnx.harness.reconstruction.engines import Engine
from ptychonnx.harness.reconstruction.manifest import MANIFEST
from ptychonnx.harness.reconstruction.many_scans import ScanOutcome, reconstruct_scans
from ptychonnx.harness.reconstruction.scan_run import RunOptions
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.inference import Predictor

__all__ = ["is_folder", "reconstruct_folder"]


def is_folder(out: Path) -> bool:
    """Whether an output is a folder for the objects of several scans: it is one, or its name has no ending."""
    return out.is_dir() or not out.suffix


def reconstruct_folder(
    model: Predictor | Path | None,
    scans: Sequence[Path],
    out: Path,
    options: RunOptions,
    engine: Engine | None = None,
) -> None:
    """Reconstruct scans into a folder and print a table of them.

    Raises
    ------
    VerificationError
        If some failed.
    """
    with report_progress() as progress:
        outcomes = reconstruct_scans(model, scans, out, options, progress, engine=engine)
    output.print(_table(outcomes))
    failed = sum(outcome.record.error is not None for outcome in outcomes)
    if failed:
        raise VerificationError(
            f"{failed} of {len(outcomes)} scans failed, the others are in {out}; {out / MANIFEST} has the reasons"
        )


def _table(outcomes: Sequence[ScanOutcome]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", overflow="fold")
    for head in ("patterns", "pixels", "misfit", "s"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for outcome in outcomes:
        record = outcome.record
        cells = [
            "" if record.patterns is None else str(record.patterns),
            "" if record.shape is None else f"{record.shape[0]} x {record.shape[1]}",
            "" if record.misfit is None else f"{record.misfit:.3f}",
            f"{record.seconds:.1f}",
        ]
        table.add_row(escape(Path(record.scan).name), *cells, escape(_verdict(outcome)))
    return table


def _verdict(outcome: ScanOutcome) -> str:
    record = outcome.record
    if record.error is not None:
        return f"failed: {record.error}"
    parts = ["done before"] if outcome.is_earlier else []
    parts += [record.verdict] if record.verdict else ["misfit unknown"]
    if record.warnings:
        parts.append(
            f"{len(record.warnings)} warning{'s' * (len(record.warnings) > 1)}: {record.warnings[0]}"
        )
    return ", ".join(parts)
