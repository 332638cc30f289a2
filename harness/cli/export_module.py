"""`ptychonnx export-module`: any torch module or Keras model becomes one verified ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ptychonnx.export.artifact.export_module import ModuleInput, framework_of
from ptychonnx.export.artifact.export_module import export_module as run_export
from ptychonnx.export.artifact.export_options import ModuleOptions
from ptychonnx.export.artifact.input_text import other_sizes, read_example, read_input
from ptychonnx.export.artifact.source_loading import load_source, load_weights, read_arguments
from ptychonnx.harness.cli.console import print_result, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.runtime.atomic import check_output
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.progress import Progress

__all__ = ["export_module"]


@derive_options
def export_module(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:NAME",
            help="Python file, or package.module, and the name of a torch module, a Keras model, or a class or "
            "function that returns one. The code is run. Or a .keras file, which is read in safe mode.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write, ending in .onnx.")],
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Shape of an input without the batch axis, such as 1,64,64; once for each input, '' for one number "
            "for each element of a batch. Complete form: NAME=SIZES:TYPE:LOW..HIGH:shared, such as ids=12:int64:0..9, "
            "batch.x=3,32,32 for a dictionary, grid=2,32,32:shared for an input without batch. Complex inputs are "
            "written 2,32,32:complex64, and the graph takes them as pairs of real numbers."
        ),
    ] = None,
    shape_also: Annotated[
        list[str] | None,
        typer.Option(
            help="Another size of the inputs, such as 1,128,128, with semicolons between several inputs: a second file "
            "with the same weights, verified in the same way."
        ),
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(help=".npz file with arrays of all inputs, the batch first, to verify on in addition."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights of a torch module: a state dictionary, also inside a checkpoint or with a prefix, or "
            "safetensors; of a Keras model, .weights.h5. Nothing in the file is run."
        ),
    ] = None,
    weights_key: Annotated[
        str | None,
        typer.Option(help="Key of the state dictionary in the file of weights, if several fit, such as ema."),
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(help="Argument NAME=VALUE of the class or function, such as width=32.")
    ] = None,
    *,
    options: ModuleOptions,
) -> None:
    """Compile any **torch module** or **Keras model** to ONNX, Fourier layers included, and verify it.

    Fourier transforms become products of real matrices of fixed size, so that every engine runs them. The file is
    published only if it reproduces the framework in each installed engine; otherwise there is no file and the exit code
    is 1. All figures are written next to it, to `.verification.txt` and `.json`.

    Example: `ptychonnx export-module net.py:build --shape 1,64,64 --out net.onnx`
    """
    if weights_key is not None and weights is None:
        raise InputError("--weights-key: names a part of a file of weights, expected --weights FILE with it")
    inputs = [read_input(text) for text in shape or []]
    if example is not None:
        inputs = read_example(example, inputs)
    sizes = [inputs, *(other_sizes(inputs, text) for text in shape_also or [])]
    files = [out, *(_file_of(out, inputs, resized) for resized in sizes[1:])]
    for file in files:
        check_output(file)
    arguments = read_arguments(arg or [])
    with report_progress() as progress:
        progress.stage(f"Loading {source}")
        module = load_source(source, arguments)
        notes = [] if weights is None else load_weights(module, weights, weights_key)
        results = [
            _export(module, resized, file, options, source, notes, progress)
            for resized, file in zip(sizes, files, strict=True)
        ]
    for result in results:
        print_result(result.path, result.verdict())


def _export(
    module: Any,
    inputs: list[ModuleInput],
    out: Path,
    options: ModuleOptions,
    source: str,
    notes: list[str],
    progress: Progress,
) -> Any:
    if not inputs and framework_of(module) == "torch":
        raise InputError(
            "a torch module does not say what it takes: expected --shape or --example for each input"
        )
    name = Path(source).name
    return run_export(module, inputs, out, options, source=name, notes=notes, progress=progress)


def _file_of(out: Path, inputs: list[ModuleInput], resized: list[ModuleInput]) -> Path:
    """``net_1x128x128.onnx`` next to ``net.onnx``, after the first input whose size differs."""
    shape = next(other.shape for one, other in zip(inputs, resized, strict=True) if one.shape != other.shape)
    return out.with_name(f"{out.stem}_{'x'.join(map(str, shape))}{out.suffix}")
