"""`ptychonnx adopt`: a foreign network, an ONNX file or code, becomes an artifact."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.adoption import Specification, read_specification
from ptychonnx.export.adoption import adopt as adopt_network
from ptychonnx.export.adoption.foreign_module import adopt_module
from ptychonnx.export.artifact.source_loading import load_source, load_weights, read_arguments
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.harness.cli.console import print_result, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.cli.shared_options import read_if_set
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions

__all__ = ["adopt"]

_log = logging.getLogger(__name__)


def _print_schema(is_asked: bool) -> None:
    if is_asked:
        print(json.dumps(Specification.model_json_schema(), indent=2))
        raise typer.Exit


@derive_options
def adopt(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="ONNX file, written by any exporter; or FILE.py:NAME, the name of a torch module or of a class or "
            "function that returns one, which is run; or a .keras file.",
        ),
    ],
    contract: Annotated[
        Path,
        typer.Option(
            help="YAML file that describes the network's input and output; see docs/how-to/adopt.md."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Artifact to write, ending in .onnx.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights of the code: a state dictionary, a checkpoint that holds one, or Keras's .weights.h5."
        ),
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(help="Argument NAME=VALUE of the class or function, such as width=32.")
    ] = None,
    scan: Annotated[
        Path | None, typer.Option(help="Scan to compare on; seeded random patterns if not set.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest relative error against the network run by itself.")
    ] = TOLERANCE,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            callback=_print_schema,
            is_eager=True,
            help="Print the JSON schema of the YAML file, and exit.",
        ),
    ] = False,
    *,
    reading: ReadOptions,
) -> None:
    """Make an **artifact** of a foreign network, with preprocessing, layout and output inside the graph.

    The YAML file describes how measured amplitudes become the input of the network (crop, pad, rebin, mask, logarithm,
    normalise, ...) and what its output means (phase only, amplitude and phase, real and imaginary part, uncertainties,
    object or exit wave, orientation). The artifact is compared with the network run by itself between the same steps
    in NumPy. Afterwards every command treats it like any other artifact. ONNX files need neither torch nor TensorFlow.

    Example: `ptychonnx adopt theirs.onnx --contract theirs.yaml --out models/theirs.onnx`

    Example: `ptychonnx adopt net.py:build --weights net.pt --contract net.yaml --out models/net.onnx`
    """
    is_code = network.endswith(".keras") or (":" in network and not Path(network).exists())
    if not is_code and (weights is not None or arg):
        raise InputError("--weights and --arg belong to code, expected FILE.py:NAME as the network")
    arguments = read_arguments(arg or [])
    specification = read_specification(contract)
    judged_on = read_if_set(scan, reading)
    with report_progress() as progress:
        progress.stage(f"Reading {network}")
        if is_code:
            module = load_source(network, arguments)
            for note in [] if weights is None else load_weights(module, weights):
                _log.info("%s: %s", weights, note)
            adoption = partial(adopt_module, module, source=Path(network).name)
        else:
            adoption = partial(adopt_network, Path(network))
        result = adoption(specification, out, scan=judged_on, tolerance=tolerance, progress=progress)
    print_result(out, result.verdict())
