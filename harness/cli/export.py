"""`ptychonnx export`: a run becomes one verified ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.artifact import export_run
from harness.cli.console import errors, output

__all__ = ["export"]


def export(
    run: Annotated[Path, typer.Argument(help="Run folder written by `ptychonnx train`.")],
    out: Annotated[Path, typer.Option(help="Artifact to write, ending in .onnx.")],
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest relative error against the native network.")
    ] = 1e-4,
) -> None:
    """Compile a trained network to one self-describing **ONNX** file, and verify it.

    Spectral convolutions become matrix products, Keras upsampling becomes Resize; the input scale and the contract
    are inside. The file gets its name only after it answered like the native network on patterns that training did
    not see, with the weights of the checkpoint; otherwise there is no file and the exit code is 1.

    Example: `ptychonnx export runs/pinn_fno --out models/pinn_fno.onnx`
    """
    with errors.status(f"Exporting {run}"):
        result = export_run(run, out, tolerance=tolerance)
    output.print(f"[bold]{out}[/]", soft_wrap=True)
    for line in result.verdict():
        output.print(line, soft_wrap=True, markup=False)
