"""Adoption: an ONNX file from elsewhere becomes an artifact that the harness treats like any other."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.adoption.foreign_graph import foreign_names, patch_sides
from ptychonnx.export.adoption.numpy_reference import ForeignNetwork
from ptychonnx.export.adoption.sidecar import Layout, Specification
from ptychonnx.export.artifact.candidate import Candidate, VerifiedGraph, release
from ptychonnx.export.artifact.export_result import ExportResult
from ptychonnx.export.artifact.publication import check_name
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.graph.opset import DEFAULT_OPSET, LOWEST_OPSET, opset_of, to_opset
from ptychonnx.export.graph.tensor_names import INPUT_NAME, OUTPUT_NAME
from ptychonnx.export.verification.inputs import amplitude_inputs
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.runtime.contract import (
    Contract,
    Conversion,
    NetworkInput,
    Provenance,
    Stitching,
    TrainingProbe,
)
from ptychonnx.runtime.contract.integrity import check_model_file
from ptychonnx.runtime.errors import InputError, UnsupportedError
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["adopt"]

_COMPARED_PATTERNS = 20


def adopt(
    foreign: Path,
    specification: Specification,
    out: Path,
    *,
    scan: Scan | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = SILENT,
) -> ExportResult:
    """Add preprocessing and output conversion to a foreign network, verify the whole, and write `out`.

    Preprocessing, layouts, orientation, pixel size and the division of an exit wave by the probe become nodes of the
    graph. In every engine, the whole graph is compared with the foreign graph run between the same steps in NumPy.

    Parameters
    ----------
    foreign
        An ONNX file with one float32 input.
    specification
        See `read_specification`.
    out
        File to write; it appears complete and verified, or not at all, with its report next to it.
    scan
        Patterns to compare on; by default seeded patterns with the flux of the specification.
    tolerance
        Largest relative error.
    progress
        Receives the stages.

    Raises
    ------
    InputError
        If the file is unsafe or not an ONNX model, or the specification does not fit it.
    VerificationError
        If a check fails; nothing is written.
    """
    out = check_name(out)
    model = _read(Path(foreign))
    batch = _check_input(Path(foreign), model, specification)
    native = ForeignNetwork(model, specification, batch)
    patterns, origin = _patterns(specification, scan)
    native(patterns[:1])  # raises an error of one line if the specification does not fit
    original = opset_of(model)
    raised = to_opset(model, max(original, DEFAULT_OPSET if original >= LOWEST_OPSET else LOWEST_OPSET))
    # Imported here because onnx_ir takes half a second to import, which the command line would pay every time.
    wrap = importlib.import_module("ptychonnx.export.adoption.wrapped_graph").wrap
    candidate = Candidate(
        label=specification.label,
        model=wrap(raised, specification, batch),
        inputs=[INPUT_NAME],
        native={OUTPUT_NAME: native},
        verification_inputs=amplitude_inputs(patterns, origin),
        stamp=partial(_contract, model, specification, batch),
        batch=batch,
        tolerance=tolerance,
        passes=False,
        # How accurately another engine runs the foreign network does not depend on the adoption.
        deciding_engines="onnxruntime",
    )
    published = release(candidate, out, progress)
    return ExportResult(out, published.stamp, published.report)


def _read(path: Path) -> onnx.ModelProto:
    check_model_file(path)
    model = onnx.load(path)  # with weights from other files in its folder, which were checked
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    if any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
        used = {node.domain for node in model.graph.node}
        for entry in [entry for entry in model.opset_import if entry.domain not in used | {""}]:
            model.opset_import.remove(entry)
    # In old files, constants are also listed as inputs.
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)
    return model


def _check_input(path: Path, model: onnx.ModelProto, specification: Specification) -> int | None:
    """Check the input of the foreign graph, and return its fixed batch size, or None."""
    try:
        name, _ = foreign_names(model, specification)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    (value,) = (value for value in model.graph.input if value.name == name)
    tensor = value.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise UnsupportedError(f"{path}: input {name!r} is {kind}, expected float")
    side, _ = patch_sides(specification)
    expected = {"BCNN": [1, side, side], "BNNC": [side, side, 1], "BNN": [side, side]}
    axes = [axis.dim_value for axis in tensor.shape.dim]
    layout: Layout = specification.input.layout
    wanted = expected[layout]
    fits = len(axes) == len(wanted) + 1 and all(
        axis in (0, size) for axis, size in zip(axes[1:], wanted, strict=True)
    )
    if not fits:
        raise InputError(
            f"{path}: input {name!r} is {axes}, the specification leads to [batch, "
            f"{', '.join(map(str, wanted))}] as {layout}"
        )
    return axes[0] or None


def _patterns(specification: Specification, scan: Scan | None) -> tuple[NDArray[np.float32], str]:
    n = specification.n
    if scan is not None:
        if scan.size != n:
            raise InputError(
                f"{scan.name}: patterns are {scan.size} x {scan.size}, the specification says {n} x {n}"
            )
        chosen = np.unique(np.linspace(0, len(scan) - 1, _COMPARED_PATTERNS).round().astype(np.intp))
        return scan.diffraction[chosen][:, None], f"{len(chosen)} patterns of {scan.name}"
    row, column = np.mgrid[:n, :n] - n // 2
    beam = np.exp(-(row**2 + column**2) / (2 * (n / 10) ** 2)) + 1e-4
    # The legacy generator, because its numbers never change.
    generator = np.random.RandomState(0)
    speckle = generator.exponential(size=(_COMPARED_PATTERNS, n, n))
    mean = beam * speckle
    counts = generator.poisson(mean * (specification.flux / mean.sum((1, 2), keepdims=True)))
    amplitude = np.sqrt(counts).astype(np.float32)[:, None]
    return amplitude, f"{_COMPARED_PATTERNS} seeded speckle patterns of {specification.flux:.3g} photons"


def _contract(
    foreign: onnx.ModelProto, specification: Specification, batch: int | None, verified: VerifiedGraph
) -> Contract:
    _, window = patch_sides(specification)
    weighting = specification.stitching or ("probe" if window == specification.n else "crop")
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    sizes = [
        int(np.prod(tensor.dims)) for tensor in foreign.graph.initializer if tensor.data_type in floating
    ]
    producer = f"{foreign.producer_name} {foreign.producer_version}".strip() or "an unknown exporter"
    steps = [name for name, _, _ in specification.resolved_steps()[:-1]]
    return Contract(
        label=specification.label,
        architecture=specification.architecture,
        n=specification.n,
        batch=batch,
        input=NetworkInput(scale=1.0, scale_rule=f"steps in the graph: {', '.join(steps) or 'none'}"),
        stitching=Stitching(weighting=weighting),
        probe=TrainingProbe(sha256=None, modes=0, flux=specification.flux),
        provenance=Provenance(
            framework="foreign",
            versions={},
            git_commit=None,
            parameters=sum(sizes),
            origin=specification.origin,
        ),
        conversion=Conversion(
            exporter=f"{producer}, adopted",
            opset=opset_of(verified.model),
            ir_version=verified.model.ir_version,
            lowering="none",
            passes=[],
            operators_before=dict(sorted(operators(foreign).items())),
        ),
        parity=verified.report.parity(),
    )
