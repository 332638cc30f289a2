"""`ptychonnx simulate`: datasets with a known object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import errors, output
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, build_lines
from ptychonnx.harness.simulate.probes import ProbeKind
from ptychonnx.runtime.validation import checked

__all__ = ["app"]

app = typer.Typer(help="Simulate scans of known objects.", no_args_is_help=True)
_DEFAULT = LinesConfig()


@app.callback()
def simulate() -> None:
    """Simulate scans of known objects."""


@app.command()
def lines(
    out: Annotated[Path, typer.Option(help="Folder for train.npz, test.npz and manifest.json.")],
    n: Annotated[int, typer.Option(help="Side of a pattern, pixels.")] = _DEFAULT.n,
    probe: Annotated[
        ProbeKind, typer.Option(help="A focused X-ray probe, or an idealised disk.")
    ] = _DEFAULT.probe,
    photons: Annotated[float, typer.Option(help="Mean photons in a pattern.")] = _DEFAULT.photons,
    step: Annotated[
        int, typer.Option(help="Raster step, pixels: the smaller, the more overlap.")
    ] = _DEFAULT.step,
    jitter: Annotated[
        int, typer.Option(help="Largest random shift of a position, pixels.")
    ] = _DEFAULT.jitter,
    train_grid: Annotated[
        int, typer.Option(help="Training scan: grid x grid positions.")
    ] = _DEFAULT.train_grid,
    test_grid: Annotated[int, typer.Option(help="Test scan: grid x grid positions.")] = _DEFAULT.test_grid,
    absorption: Annotated[float, typer.Option(help="Amplitude contrast, 0 to 1.")] = _DEFAULT.absorption,
    phase_shift: Annotated[float, typer.Option(help="Phase contrast, radians.")] = _DEFAULT.phase_shift,
    seed: Annotated[int, typer.Option(help="Of the objects, the positions and the noise.")] = _DEFAULT.seed,
) -> None:
    """Simulate scans of **random lines**: a training scan, and a test scan of another object.

    Cached: the files are rebuilt only if a parameter differs from the manifest, or a file from its hash.

    Example: `ptychonnx simulate lines --n 64 --photons 1e6 --out data/lines`
    """
    values = {
        "n": n,
        "probe": probe,
        "photons": photons,
        "step": step,
        "jitter": jitter,
        "train_grid": train_grid,
        "test_grid": test_grid,
        "absorption": absorption,
        "phase_shift": phase_shift,
        "seed": seed,
    }
    config = checked(LinesConfig, values)
    with errors.status("Simulating lines"):
        dataset = build_lines(config, out)
    how = "simulated" if dataset.rebuilt else "unchanged, taken from the cache"
    output.print(f"{dataset.train}, {dataset.test}: {how}")
