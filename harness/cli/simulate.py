"""`ptychonnx simulate`: datasets with a known object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import print_lines, report_progress
from ptychonnx.harness.cli.model_options import Command, derive_options
from ptychonnx.harness.simulate.family import FamilyConfig, build_family
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
    print_lines(f"{dataset.train}, {dataset.test}: {state}")


@app.command(cls=Command)
@derive_options
def family(
    out: Annotated[Path, typer.Option(help="Folder for scan_0000.npz and so on, and manifest.json.")],
    *,
    settings: FamilyConfig,
) -> None:
    """Simulate scans of **many beams and objects**, to train a network that fits more than one of them.

    Each scan has a beam, an object, a number of photons and an overlap of its own. The manifest lists them all. The
    files are rebuilt only if a parameter differs from the manifest, or a file from its hash.

    Example: `ptychonnx simulate family --n 64 --scans 40 --out family`
    """
    with report_progress() as progress:
        dataset = build_family(settings, out, progress)
    state = "simulated" if dataset.rebuilt else "unchanged, taken from the cache"
    print_lines(f"{out}: {len(dataset.scans)} scans, {state}")
