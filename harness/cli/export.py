"""`ptychonnx export`: a run becomes one verified ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.artifact.export_options import Domain, ExportOptions, Precision
from ptychonnx.export.artifact.export_run import export_run
from ptychonnx.export.graph.opset import DEFAULT_OPSET, HIGHEST_OPSET, LOWEST_OPSET
from ptychonnx.harness.cli.console import errors, output
from ptychonnx.harness.cli.scan_options import read_if_given, with_reading
from ptychonnx.harness.evaluation.precision_gate import AllowedDecrease, PrecisionGate
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.validation import checked
from ptychonnx.train.run import held_out_scan

__all__ = ["export"]

_FALL = AllowedDecrease()


@with_reading
def export(
    run: Annotated[Path, typer.Argument(help="Run folder written by `ptychonnx train`.")],
    out: Annotated[Path, typer.Option(help="Artifact to write, ending in .onnx.")],
    tolerance: Annotated[
        float, typer.Option(help="Largest relative error of float32 against the native network.")
    ] = 1e-4,
    precision: Annotated[
        Precision, typer.Option(help="fp16 for GPUs, int8 for CPUs: accepted if the reconstruction stays.")
    ] = "fp32",
    scan: Annotated[
        Path | None,
        typer.Option(
            help="Scan to calibrate and judge a lower precision on; the held-out patterns if not given."
        ),
    ] = None,
    pearson_fall: Annotated[
        float, typer.Option(help="Largest fall of Pearson correlations in a lower precision.")
    ] = _FALL.pearson,
    ssim_fall: Annotated[float, typer.Option(help="Largest fall of SSIM in a lower precision.")] = _FALL.ssim,
    frc_fall: Annotated[
        float, typer.Option(help="Largest fall of FRC cut-offs in a lower precision, cycles per pixel.")
    ] = _FALL.frc_cutoff,
    domain: Annotated[
        Domain,
        typer.Option("--input", help="counts: raw uint16 counts; mask and square root are in the graph."),
    ] = "amplitude",
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="The only batch it takes, for CUDA graphs and TensorRT; any if not given."),
    ] = None,
    final_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Steps of phase retrieval after the network: more explain the pattern better and take longer. "
            "As many as the run says if not given.",
        ),
    ] = None,
    opset: Annotated[
        int, typer.Option(min=LOWEST_OPSET, max=HIGHEST_OPSET, help="Version of the ONNX operators.")
    ] = DEFAULT_OPSET,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="Refuse a graph with a node that this target lacks: cpu, cuda, tensorrt, openvino."
        ),
    ] = None,
    *,
    reading: ReadOptions,
) -> None:
    """Compile a trained network to one self-describing **ONNX** file, and verify it.

    Spectral convolutions become matrix products, Keras upsampling becomes Resize; the input scale and the contract
    are inside. The file gets its name only after it answered like the native network on patterns that training did
    not see, with the weights of the checkpoint; otherwise there is no file and the exit code is 1. All figures stand
    beside it in a `.verification.txt` and `.json`.

    Example: `ptychonnx export runs/pinn_fno --out models/pinn_fno.onnx`
    """
    options = checked(
        ExportOptions,
        {
            "tolerance": tolerance,
            "opset": opset,
            "input": domain,
            "batch": batch,
            "precision": precision,
            "require": tuple(require or ()),
        },
    )
    if precision == "fp32" and scan is not None:
        raise InputError(f"{scan}: a scan is only used with --precision fp16 or int8")
    judged = read_if_given(scan, reading)
    if precision != "fp32" and judged is None:
        judged = held_out_scan(run)
    allowed = checked(AllowedDecrease, {"pearson": pearson_fall, "ssim": ssim_fall, "frc_cutoff": frc_fall})
    with errors.status(f"Exporting {run}") as status:
        result = export_run(
            run,
            out,
            options,
            judge=None if judged is None else PrecisionGate(judged, allowed),
            calibration=judged,
            final_steps=final_steps,
            progress=status.update,
        )
    output.print(f"[bold]{out}[/]", soft_wrap=True)
    for line in result.verdict():
        output.print(line, soft_wrap=True, markup=False)
