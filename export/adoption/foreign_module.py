"""A foreign network that is still code: a torch module or a Keras model, converted as `export_module` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ptychonnx.export.adoption.adopt import adopt_network
from ptychonnx.export.adoption.foreign_graph import pattern_shape
from ptychonnx.export.adoption.foreign_network import describe_graph
from ptychonnx.export.adoption.sidecar import Specification
from ptychonnx.export.artifact.export_module import ModuleInput, framework_of, native_module
from ptychonnx.export.artifact.export_run import ExportResult
from ptychonnx.export.artifact.publication import check_name
from ptychonnx.export.graph.opset import DEFAULT_OPSET
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["adopt_module"]


def adopt_module(
    module: Any,
    specification: Specification,
    out: Path,
    *,
    source: str = "a module",
    scan: Scan | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = SILENT,
) -> ExportResult:
    """`adopt` for a torch module or a Keras model with its weights; the artifact is compared with the module itself.

    The module takes patterns float32 in the layout of the specification; a copy is converted, in evaluation mode. It
    came from `source`, in words.

    Raises InputError if the module does not run on such patterns, or its outputs are not as specified. Raises
    UnsupportedError if the module cannot be converted. Raises VerificationError if a check fails; nothing is written.
    """
    check_name(out)
    progress.stage(f"Converting {source}")
    # A Keras model says itself what it takes.
    inputs = [ModuleInput(pattern_shape(specification))] if framework_of(module) == "torch" else []
    native = native_module(module, inputs)
    converted = native.convert(DEFAULT_OPSET)
    names = [output.name for output in native.outputs]

    def named(predict: Callable[..., list[NDArray]], patterns: NDArray) -> dict[str, NDArray]:
        return dict(zip(names, predict(patterns), strict=True))

    model, installed = converted.model, version(native.framework)
    model.producer_name, model.producer_version = native.framework, installed
    foreign = replace(
        describe_graph(source, model, partial(named, native.predict), specification),
        versions={native.framework: installed},
        lowering=converted.lowering_text(),
        converted=True,
        exact_run=partial(named, native.exact),
    )
    return adopt_network(foreign, specification, out, scan=scan, tolerance=tolerance, progress=progress)
