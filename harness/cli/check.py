"""`ptychonnx check`: a verdict on a scan before anybody trusts an image of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ptychonnx.harness.check.scan_check import ScanCheck, check_scan
from ptychonnx.harness.cli.console import output, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.cli.shared_options import Probe
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.formats import ReadOptions

__all__ = ["check"]

_STYLES = {"good": "green", "doubtful": "yellow", "wrong": "bold red", "unknown": "dim"}


@derive_options
def check(
    scan: Annotated[Path, typer.Argument(help="Scan file (docs/reference/formats.md).", show_default=False)],
    probe: Probe = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON instead.")] = False,
    *,
    reading: ReadOptions,
) -> None:
    """Judge a scan: units, photons, detector, positions, probe, and which of **eight orientations** explains it.

    The exit code is 1 if something is wrong.

    Example: `ptychonnx check scan.cxi`
    """
    with report_progress() as progress:
        result = check_scan(scan, probe=probe, options=reading, progress=progress)
    if as_json:
        print(json.dumps(result.as_json(), indent=2, allow_nan=False))
    else:
        _show(result)
    wrong = [finding.subject for finding in result.findings if finding.verdict == "wrong"]
    if wrong:
        raise VerificationError(
            f"{result.name}: {', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} wrong"
        )


def _show(result: ScanCheck) -> None:
    table = Table(
        title=Text(f"{result.name}: {result.patterns} patterns of {result.size} x {result.size} pixels"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("", "verdict", "finding"):
        table.add_column(heading, overflow="fold")
    for finding in result.findings:
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        table.add_row(escape(finding.subject), verdict, escape(finding.text))
    output.print(table)
    output.print(Text(f"The scan is {result.verdict}.", style=_STYLES[result.verdict]))
