"""`ptychonnx export-module`: any torch module becomes one verified ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ptychonnx.export.graph.opset import DEFAULT_OPSET, HIGHEST_OPSET, LOWEST_OPSET
from ptychonnx.harness.cli.console import errors, output
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.validation import checked
from ptychonnx.train.registry import import_framework_module

__all__ = ["export_module"]


def export_module(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:NAME",
            help="Python file, and in it a function that gives a torch module, or a module. The file is run.",
        ),
    ],
    shape: Annotated[
        list[str],
        typer.Option(
            help="Shape of an input without the batch, as 1,64,64. Once for each input. "
            "2,32,32:complex64 for complex values, which the graph takes as pairs of numbers."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write, ending in .onnx.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="State dictionary to load into the module, written by torch.save."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative error against torch.")] = 1e-4,
    batch: Annotated[
        int | None, typer.Option(min=1, help="The only batch that it takes; any if not given.")
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
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs of verification.")] = 0,
) -> None:
    """Compile any **torch module** to ONNX, Fourier layers of `neuraloperator` included, and verify it.

    Spectral convolutions become products of real matrices, so that every engine runs them; their sizes are fixed.
    The file appears only after it answered like torch in each installed engine; otherwise there is no file and the
    exit code is 1. All figures stand beside it in a `.verification.txt` and `.json`.

    Example: `ptychonnx export-module net.py:build --shape 1,64,64 --out net.onnx`
    """
    inputs = [_parse(text) for text in shape]
    loading = import_framework_module("ptychonnx.export.lowering.torch.module_loading", "torch")
    exporting = import_framework_module("ptychonnx.export.artifact.export_module", "torch")
    options = checked(
        exporting.ModuleOptions,
        {
            "tolerance": tolerance,
            "opset": opset,
            "batch": batch,
            "require": tuple(require or ()),
            "seed": seed,
        },
    )
    with errors.status(f"Exporting {source}"):
        module = loading.load_module(source)
        if weights is not None:
            loading.load_weights(module, weights)
        result: Any = exporting.export_module(
            module,
            [exporting.ModuleInput(*given) for given in inputs],
            out,
            options,
            source=Path(source).name,
        )
    output.print(f"[bold]{out}[/]", soft_wrap=True)
    for line in result.verdict():
        output.print(line, soft_wrap=True, markup=False)


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
