"""`ptychonnx ptychodus-child`: a reconstruction in a process that ptychodus started."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ptychonnx.harness.campaign.child_process import LOG, ChildProcess, IndexFilter
from ptychonnx.harness.campaign.scan_run import RunOptions
from ptychonnx.harness.cli.model_options import Omit, derive_options
from ptychonnx.harness.iterative.iteration_options import IterationOptions
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions

__all__ = ["ptychodus_child"]


@derive_options
def ptychodus_child(
    input_directory: Annotated[
        Path, typer.Option("--input-directory", "-i", help="Folder with diffraction.h5 and product.h5.")
    ],
    output_directory: Annotated[
        Path, typer.Option("--output-directory", "-o", help="Folder for product.h5 and the log.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(parser=artifact_path, help="ONNX artifact or zoo:NAME; the general network of the zoo."),
    ] = None,
    index_filter: Annotated[IndexFilter, typer.Option(help="Patterns by their index.")] = "all",
    event_file: Annotated[
        Path | None,
        typer.Option(help="File for the events, instead of standard output, which the log gets then."),
    ] = None,
    fit_patterns: Annotated[
        bool, typer.Option("--fit-patterns", help="Bin, crop or pad patterns of another size.")
    ] = False,
    *,
    inference: InferenceOptions,
    stitching: ReconstructOptions,
    iterations: Annotated[IterationOptions, Omit("iterations", "refine_probe")],
) -> None:
    """Reconstruct a folder of **ptychodus**, with events as JSON lines, as its `reconstruct_subprocess` does.

    SIGTERM and SIGINT cancel, a second one kills. Exit codes: 0 done, 1 failed, 2 wrong input, 130 cancelled.

    Example: `ptychonnx ptychodus-child -i run/in -o run/out --refine 10`
    """
    output_directory.mkdir(parents=True, exist_ok=True)
    log = None if event_file is not None else output_directory / LOG
    child = ChildProcess(
        input_directory,
        output_directory,
        model,
        RunOptions(
            inference=inference, stitching=stitching, iterations=iterations, fit_patterns=fit_patterns
        ),
        partial(os.write, _event_stream(event_file, log)),
        index_filter,
        log,
    )

    def handle(number: int, frame: FrameType | None) -> None:
        if child.is_cancelled:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        child.cancel(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    raise typer.Exit(child.run())


def _event_stream(event_file: Path | None, log: Path | None) -> int:
    """Descriptor of the event file; without one, of standard output, whose other content goes to the log."""
    if event_file is not None:
        return os.open(event_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    events = os.dup(1)
    assert log is not None
    # Compiled code writes to the descriptors.
    sys.stdout.flush()
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    return events
