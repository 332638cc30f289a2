"""The parts of `ptychonnx reconstruct` and `ptychonnx evaluate` that take many scans."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.markup import escape
from rich.table import Table

from ptychonnx.harness.campaign.manifest import MANIFEST
from ptychonnx.harness.campaign.many_scans import ScanOutcome
from ptychonnx.harness.campaign.watch import complete_scans
from ptychonnx.harness.cli.console import output, print_lines, report_progress
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.progress import SILENT, Progress

__all__ = ["ProcessScans", "process_folder", "process_watched"]

_logger = logging.getLogger("ptychonnx.harness.scans")


class ProcessScans(Protocol):
    """What a command does with scans: see `reconstruct_scans` and `evaluate_scans`."""

    def __call__(self, scans: Sequence[Path], *, progress: Progress = SILENT) -> list[ScanOutcome]:
        """Process scans, and write the result and the record of each."""


def process_folder(process: ProcessScans, scans: Sequence[Path], out: Path) -> None:
    """Process scans into a folder and print a table of them.

    Raises VerificationError if some failed.
    """
    with report_progress() as progress:
        outcomes = process(scans, progress=progress)
    _conclude(outcomes, out)


def process_watched(process: ProcessScans, folders: Sequence[Path], out: Path) -> None:
    """Process the scans that appear in a folder until the user interrupts; then print a table of them.

    Raises InputError if the network or the folder cannot be used. Raises VerificationError if some scans failed.
    """
    (folder,) = folders
    outcomes: dict[str, ScanOutcome] = {}
    process([])
    print_lines(f"Watching {folder}; Ctrl-C ends")
    try:
        for scans in filter(None, complete_scans(folder)):
            try:
                latest = process(scans)
            except InputError as error:  # a name that occurs twice must not end the night
                _logger.warning("%s left out: %s", ", ".join(scan.name for scan in scans), error)
                continue
            for outcome in latest:
                outcomes[outcome.record.result] = outcome
                name = Path(outcome.record.scan).name
                print_lines(f"{name}: {_verdict(outcome)}")
    except KeyboardInterrupt:
        _conclude(list(outcomes.values()), out)


def _conclude(outcomes: Sequence[ScanOutcome], out: Path) -> None:
    """Print a table of many scans.

    Raises VerificationError if some failed.
    """
    output.print(_table(outcomes))
    failed = sum(outcome.record.error is not None for outcome in outcomes)
    if failed:
        raise VerificationError(
            f"{failed} of {len(outcomes)} scans failed, the others are in {out}; {out / MANIFEST} has the reasons"
        )


def _table(outcomes: Sequence[ScanOutcome]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", overflow="fold")
    for head in ("patterns", "pixels", "misfit", "scattered", "s"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for outcome in outcomes:
        record = outcome.record
        cells = [
            "" if record.patterns is None else str(record.patterns),
            "" if record.shape is None else f"{record.shape[0]} x {record.shape[1]}",
            "" if record.misfit is None else f"{record.misfit:.3f}",
            "" if record.scattered is None else f"{record.scattered:.3f}",
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
    parts += [f"{label} SSIM {_number(a)} / {_number(p)}" for label, (a, p) in record.ssim.items()]
    if record.warnings:
        parts.append(
            f"{len(record.warnings)} warning{'s' * (len(record.warnings) > 1)}: {record.warnings[0]}"
        )
    return ", ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
