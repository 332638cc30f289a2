"""`ptychonnx adopt`: a foreign ONNX network becomes an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.adoption import adopt as adopt_network
from ptychonnx.export.adoption import read_specification
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.harness.cli.console import print_result, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.cli.shared_options import read_if_set
from ptychonnx.runtime.formats import ReadOptions

__all__ = ["adopt"]


@derive_options
def adopt(
    network: Annotated[Path, typer.Argument(help="ONNX file, written by any exporter.")],
    contract: Annotated[
        Path,
        typer.Option(
            help="YAML file that describes the network's input and output; see docs/how-to/adopt.md."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Artifact to write, ending in .onnx.")],
    scan: Annotated[
        Path | None, typer.Option(help="Scan to compare on; seeded random patterns if not set.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest relative error against the network run by itself.")
    ] = TOLERANCE,
    *,
    reading: ReadOptions,
) -> None:
    """Make an **artifact** of a foreign ONNX network, with preprocessing, layout and output inside the graph.

    The YAML file describes how measured amplitudes become the input of the network (crop, rebin, threshold, logarithm,
    standardise, ...) and what its output means (phase only, amplitude and phase, real and imaginary part, object or
    exit wave, orientation). The artifact is compared with the network run by itself between the same steps in NumPy.
    Afterwards every command treats it like any other artifact. Needs neither torch nor TensorFlow.

    Example: `ptychonnx adopt theirs.onnx --contract theirs.yaml --out models/theirs.onnx`
    """
    specification = read_specification(contract)
    judged_on = read_if_set(scan, reading)
    with report_progress() as progress:
        progress.stage(f"Adopting {network}")
        result = adopt_network(network, specification, out, scan=judged_on, tolerance=tolerance)
    print_result(out, result.verdict())
