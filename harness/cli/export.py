"""`ptychonnx export`: a run becomes one verified ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.export.artifact.export_run import export_run
from ptychonnx.harness.cli.console import print_result, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.cli.shared_options import read_if_set
from ptychonnx.harness.evaluation.precision_gate import AllowedDecrease, PrecisionGate
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.train.run import held_out_scan

__all__ = ["export"]


@derive_options
def export(
    run: Annotated[Path, typer.Argument(help="Run folder written by `ptychonnx train`.")],
    out: Annotated[Path, typer.Option(help="Artifact to write, ending in .onnx.")],
    scan: Annotated[
        Path | None,
        typer.Option(
            help="Scan to calibrate and judge a lower precision on; the held-out patterns if not set."
        ),
    ] = None,
    final_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Steps of phase retrieval after the network, instead of the number that the run was trained with: "
            "more steps explain the pattern better and take longer.",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            min=16,
            help="Side of the patterns, with --general: the same weights for another size, where the architecture "
            "allows it.",
        ),
    ] = None,
    *,
    options: ExportOptions,
    allowed: AllowedDecrease,
    reading: ReadOptions,
) -> None:
    """Compile a trained network to one self-describing **ONNX** file, and verify it.

    Spectral convolutions become matrix products and Keras upsampling becomes Resize; the input scale and the contract
    are inside the file. The file is published only if it reproduces the native network on patterns that training did
    not see, with the weights of the checkpoint; otherwise there is no file and the exit code is 1. All figures are
    written next to it, to `.verification.txt` and `.json`.

    Example: `ptychonnx export runs/pinn_fno --out models/pinn_fno.onnx`
    """
    if options.precision == "fp32" and scan is not None:
        raise InputError(f"{scan}: a scan is only used with --precision fp16 or int8")
    judged_on = read_if_set(scan, reading)
    if options.precision != "fp32" and judged_on is None:
        judged_on = held_out_scan(run)
    with report_progress() as progress:
        progress.stage(f"Exporting {run}")
        result = export_run(
            run,
            out,
            options,
            gate=None if judged_on is None else PrecisionGate(judged_on, allowed),
            calibration=judged_on,
            final_steps=final_steps,
            n=n,
            progress=progress,
        )
    print_result(out, result.verdict())
