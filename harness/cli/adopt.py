"""`ptychonnx adopt`: an ONNX network of somebody else becomes an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.adoption import adopt as adopt_network
from ptychonnx.export.adoption import read_specification
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.harness.cli.console import errors, output
from ptychonnx.harness.cli.scan_options import read_if_given, with_reading
from ptychonnx.runtime.formats import ReadOptions

__all__ = ["adopt"]


@with_reading
def adopt(
    network: Annotated[Path, typer.Argument(help="ONNX file, made by whatever exporter.")],
    contract: Annotated[
        Path,
        typer.Option(help="YAML file that says what it takes and gives; see docs/reference/adoption.md."),
    ],
    out: Annotated[Path, typer.Option(help="Artifact to write, ending in .onnx.")],
    scan: Annotated[
        Path | None, typer.Option(help="Scan to compare on; seeded patterns if not given.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest relative error against the network run by itself.")
    ] = TOLERANCE,
    *,
    reading: ReadOptions,
) -> None:
    """Make an **artifact** of a foreign ONNX network: preprocessing, layout and output go into the graph.

    The YAML file says how measured amplitudes become what the network takes (crop, rebin, threshold, logarithm,
    standardise, ...), and what it gives (phase only, amplitude and phase, real and imaginary part, object or exit
    wave, orientation). The artifact is compared with the network run by itself between the same steps in NumPy. After
    that no command knows that it is foreign. Needs neither torch nor TensorFlow.

    Example: `ptychonnx adopt theirs.onnx --contract theirs.yaml --out models/theirs.onnx`
    """
    specification = read_specification(contract)
    compared = read_if_given(scan, reading)
    with errors.status(f"Adopting {network}"):
        result = adopt_network(network, specification, out, scan=compared, tolerance=tolerance)
    output.print(f"[bold]{out}[/]", soft_wrap=True)
    for line in result.verdict():
        output.print(line, soft_wrap=True, markup=False)
