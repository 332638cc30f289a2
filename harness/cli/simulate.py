"""`ptychonnx simulate`: datasets with a known object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import output, report_progress
from ptychonnx.harness.cli.model_options import Command, derive_options
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, build_lines

__all__ = ["app"]

app = typer.Typer(help="Simulate scans of known objects.", no_args_is_help=True)


@app.callback()
def simulate() -> None:
    """Simulate scans of known objects."""


@app.command(cls=Command)
@derive_options
def lines(
    out: Annotated[Path, typer.Option(help="Folder for train.npz, test.npz and manifest.json.")],
    *,
    settings: LinesConfig,
) -> None:
    """Simulate scans of **random lines**: a training scan, and a test scan of another object.

    The files are rebuilt only if a parameter differs from the manifest, or a file from its hash.

    Example: `ptychonnx simulate lines --n 64 --photons 1e6 --out data/lines`
    """
    with report_progress() as progress:
        progress.stage("Simulating lines")
        dataset = build_lines(settings, out)
    state = "simulated" if dataset.rebuilt else "unchanged, taken from the cache"
    output.print(f"{dataset.train}, {dataset.test}: {state}", markup=False, soft_wrap=True)
