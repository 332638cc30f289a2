"""`ptychonnx metrics`: one object against another, from two files of any program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ptychonnx.harness.cli.console import output, print_lines
from ptychonnx.harness.metrics.object_files import compare_files

__all__ = ["metrics"]

_SHOWN = ("mae", "psnr", "ssim", "ms_ssim", "pearson", "contrast_ratio")


def metrics(
    reconstruction: Annotated[
        Path,
        typer.Argument(
            help="Object to judge: HDF5 (ptychodus, ptychonnx), CXI, .ptyr, .mat, NPZ, NPY, or one of two TIFF images.",
            show_default=False,
        ),
    ],
    reference: Annotated[
        Path, typer.Argument(help="Object to compare with, of the same pixels.", show_default=False)
    ],
    plane: Annotated[bool, typer.Option("--plane", help="Remove a phase ramp first.")] = False,
    register: Annotated[bool, typer.Option("--register", help="Remove a sub-pixel shift first.")] = False,
    margin: Annotated[
        int,
        typer.Option(
            min=0, help="Pixels at each border that are not compared. Default: 0.", show_default=False
        ),
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all metrics as JSON, curves included.")
    ] = False,
) -> None:
    """Print the **metrics** of one object against another, after one complex factor by least squares.

    A note names the phase ramp, shift, orientation or complex conjugate that would change the verdict. The
    pixels that are known in both are compared.

    Example: `ptychonnx metrics recon.h5 reference.npz`
    """
    result = compare_files(reconstruction, reference, plane=plane, register=register, margin=margin)
    comparison = result.comparison
    if as_json:
        print(json.dumps({**comparison.model_dump(mode="json"), "note": result.note}, indent=2))
        return
    table = Table("", "amplitude", "phase")
    for name in _SHOWN:
        values = (getattr(part, name) for part in (comparison.amplitude, comparison.phase))
        table.add_row(name.replace("_", " "), *("undefined" if v is None else f"{v:.4g}" for v in values))
    output.print(table)
    lines = [f"{comparison.pixels} pixels"]
    if comparison.alignment is not None:
        alignment = comparison.alignment
        lines.append(
            f"alignment: {alignment.method}: scale {alignment.scale:.4g}, phase {alignment.phase_rad:.3g} rad"
        )
        lines += [f"note: {note}" for note in alignment.notes]
    if comparison.collapsed:
        lines.append("collapsed: the reconstruction is flat")
    if result.note:
        lines.append(f"note: {result.note}")
    print_lines(*lines)
