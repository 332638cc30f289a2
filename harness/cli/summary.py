"""`ptychonnx summary`: a page of the objects or reports of many scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.campaign.manifest import MANIFEST, Manifest
from ptychonnx.harness.cli.console import print_result, report_progress
from ptychonnx.harness.report.scans_page import render_scans, scan_row
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError

__all__ = ["summary"]


def summary(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder that `reconstruct` or `evaluate` wrote for several scans.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file. Default: summary.html in the folder.", show_default=False)
    ] = None,
) -> None:
    """Write **one page** with thumbnails and misfits of many scans, or their figures, which sorts by any column.

    Example: `ptychonnx summary objects/`
    """
    path = out or folder / "summary.html"
    if path.suffix.lower() not in (".html", ".htm"):
        # The folder has the manifest and the objects, which a page must not replace.
        raise InputError(f"--out {path}: expected a name that ends in .html")
    manifest = Manifest(folder)
    if not manifest.records:
        raise InputError(
            f"{folder / MANIFEST}: has no scans, expected a folder that `reconstruct` or `evaluate` wrote"
        )
    rows = []
    with report_progress() as progress:
        progress.stage(f"Drawing {len(manifest.records)} objects", len(manifest.records), "objects")
        for _, record in sorted(manifest.records.items()):
            rows.append(scan_row(folder, record))
            progress.update(len(rows))
    write_text(path, render_scans(rows, f"Scans in {folder.absolute().name}"))
    failed = sum(bool(row.error) for row in rows)
    print_result(path, [f"{len(rows)} scans" + (f", of which {failed} failed" if failed else "")])
