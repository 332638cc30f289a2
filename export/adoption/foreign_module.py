"""A foreign network that is still code: a torch module, converted by `export_module` and then adopted."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from ptychonnx.export.adoption.adopt import adopt_network
from ptychonnx.export.adoption.foreign_graph import foreign_names, patch_geometry
from ptychonnx.export.adoption.foreign_network import Foreign
from ptychonnx.export.adoption.sidecar import Specification
from ptychonnx.export.artifact.export_module import ModuleInput, export_module
from ptychonnx.export.artifact.export_result import ExportResult
from ptychonnx.export.artifact.publication import check_name
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["adopt_module"]


def adopt_module(
    module: nn.Module,
    specification: Specification,
    out: Path,
    *,
    source: str = "a torch module",
    scan: Scan | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = SILENT,
) -> ExportResult:
    """`adopt` for a torch module with its weights; the artifact is compared with the module itself.

    Parameters
    ----------
    module
        Takes patterns float32 in the layout of the specification. A copy is converted, in evaluation mode.
    source
        Where the module came from, in words.

    Raises
    ------
    InputError
        If the module does not run on such patterns, or its outputs are not as specified.
    UnsupportedError
        If the module cannot be converted.
    VerificationError
        If a check fails; nothing is written.
    """
    check_name(out)
    module = module.cpu().eval()
    progress.stage(f"Converting {source}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        export_module(module, [ModuleInput(_shape(specification))], file, source=source)
        model = onnx.load(file)
    model.producer_name, model.producer_version = "torch", version("torch")
    name, heads = foreign_names(model, specification)
    names = [output.name for output in model.graph.output]

    def run(patterns: NDArray) -> dict[str, NDArray]:
        with torch.inference_mode():
            outputs = _tensors(module(torch.from_numpy(patterns)))
        return dict(zip(names, (output.numpy() for output in outputs), strict=True))

    foreign = Foreign(
        source,
        model,
        name,
        heads,
        np.dtype(np.float32),
        run,
        run_batch=None,
        batch=None,
        versions={"torch": version("torch")},
    )
    return adopt_network(foreign, specification, out, scan=scan, tolerance=tolerance, progress=progress)


def _shape(specification: Specification) -> tuple[int, ...]:
    side = patch_geometry(specification).pattern
    return {"BCNN": (1, side, side), "BNNC": (side, side, 1), "BNN": (side, side)}[specification.input.layout]


def _tensors(output: Any) -> list[torch.Tensor]:
    """All tensors in the output of a module, in order, complex ones as pairs."""
    if isinstance(output, torch.Tensor):
        return [torch.view_as_real(output) if output.is_complex() else output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in _tensors(value)]
