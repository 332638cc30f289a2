"""`ptychonnx export-module`: any torch module becomes one verified ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ptychonnx.export.artifact.export_options import ModuleOptions
from ptychonnx.harness.cli.console import print_result, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.runtime.errors import InputError
from ptychonnx.train.registry import import_framework_module

__all__ = ["export_module"]


@derive_options
def export_module(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:NAME",
            help="Python file, and the name of a torch module or of a function that returns one. The file is run.",
        ),
    ],
    shape: Annotated[
        list[str],
        typer.Option(
            help="Shape of an input without the batch axis, such as 1,64,64; once for each input. Complex inputs are "
            "written 2,32,32:complex64, and the graph takes them as pairs of real numbers."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write, ending in .onnx.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="State dictionary to load into the module, written by torch.save."),
    ] = None,
    *,
    options: ModuleOptions,
) -> None:
    """Compile any **torch module** to ONNX, Fourier layers of `neuraloperator` included, and verify it.

    Spectral convolutions become products of real matrices of fixed size, so that every engine runs them. The file is
    published only if it reproduces torch in each installed engine; otherwise there is no file and the exit code is 1.
    All figures are written next to it, to `.verification.txt` and `.json`.

    Example: `ptychonnx export-module net.py:build --shape 1,64,64 --out net.onnx`
    """
    inputs = [_parse(text) for text in shape]
    loading = import_framework_module("ptychonnx.export.lowering.torch.module_loading", "torch")
    exporting = import_framework_module("ptychonnx.export.artifact.export_module", "torch")
    with report_progress() as progress:
        progress.stage(f"Exporting {source}")
        module = loading.load_module(source)
        if weights is not None:
            loading.load_weights(module, weights)
        result: Any = exporting.export_module(
            module,
            [exporting.ModuleInput(*shape_and_kind) for shape_and_kind in inputs],
            out,
            options,
            source=Path(source).name,
        )
    print_result(out, result.verdict())


def _parse(text: str) -> tuple[tuple[int, ...], bool]:
    """``1,64,64`` or ``1,64,64:complex64`` as shape, and whether it is complex."""
    sizes, _, kind = text.partition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or kind not in ("", "float32", "complex64"):
        raise InputError(f"--shape {text}: expected sizes such as 1,64,64 or 1,64,64:complex64")
    return shape, kind == "complex64"
