"""Adoption: a network from elsewhere becomes an artifact that the harness treats like any other."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.adoption.foreign_graph import patch_geometry
from ptychonnx.export.adoption.foreign_network import Foreign, read_network
from ptychonnx.export.adoption.numpy_reference import ForeignNetwork
from ptychonnx.export.adoption.sidecar import Specification
from ptychonnx.export.artifact.candidate import Candidate, VerifiedGraph, release
from ptychonnx.export.artifact.export_run import ExportResult
from ptychonnx.export.artifact.publication import check_name
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.graph.opset import opset_of
from ptychonnx.export.graph.tensor_names import INPUT_NAME, OUTPUT_NAME
from ptychonnx.export.verification.inputs import VerificationInputs, amplitude_inputs
from ptychonnx.export.verification.verify import TOLERANCE, relative_difference
from ptychonnx.runtime.contract import (
    Contract,
    Conversion,
    NetworkInput,
    Provenance,
    Stitching,
    TrainingProbe,
)
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["adopt", "adopt_network"]

_FLOATING = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_log = logging.getLogger(__name__)

_COMPARED_PATTERNS = 20
# Relative rounding error of a Fourier transform in float32, as it reaches the layers after it.
_ROUNDING = 1e-6


def adopt(
    foreign: Path,
    specification: Specification,
    out: Path,
    *,
    scan: Scan | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = SILENT,
) -> ExportResult:
    """Make an artifact of an ONNX file with one input, verify it, and write `out`; see `ptychonnx.adopt`."""
    check_name(out)
    network = read_network(Path(foreign), specification)
    return adopt_network(network, specification, out, scan=scan, tolerance=tolerance, progress=progress)


def adopt_network(
    foreign: Foreign,
    specification: Specification,
    out: Path,
    *,
    scan: Scan | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = SILENT,
) -> ExportResult:
    """`adopt` for a network that was read, or converted from code."""
    original = foreign.model
    patterns, origin = _patterns(specification, scan)
    progress.stage(f"Running {foreign.name} by itself")
    native = foreign.between_steps(specification)
    try:
        native(patterns[:1])  # one pattern, in case the network takes no more
    except InputError as error:
        raise type(error)(f"{foreign.name}: {error}") from error
    # Imported here because onnx_ir takes half a second to import, which the command line would pay every time.
    portable_graph = importlib.import_module("ptychonnx.export.adoption.portable_graph")
    wrap = importlib.import_module("ptychonnx.export.adoption.wrapped_graph").wrap
    foreign = portable_graph.portable(foreign, specification, patterns)
    foreign = portable_graph.with_any_batch(foreign, specification, patterns)
    # One pattern at a time unless the foreign network itself takes several.
    native, exact = foreign.between_steps(specification), foreign.between_steps_in_float64(specification)
    if left_out := specification.output.left_out():
        _log.info("%s: left out of the artifact: %s", foreign.name, ", ".join(left_out))
    candidate = Candidate(
        label=specification.label,
        model=wrap(foreign.model, specification, foreign.batch),
        inputs=[INPUT_NAME],
        native={OUTPUT_NAME: native},
        exact={} if exact is None else {OUTPUT_NAME: exact},
        verification_inputs=_comparable(amplitude_inputs(patterns, origin), native, foreign, tolerance),
        stamp=partial(_adopted_contract, original, foreign, specification),
        batch=foreign.batch,
        tolerance=tolerance,
        passes=foreign.converted,
        # How accurately another engine runs the foreign network does not depend on the adoption.
        deciding_engines="onnxruntime",
    )
    return ExportResult(out, *release(candidate, out, progress))


def _comparable(
    inputs: Sequence[VerificationInputs], native: ForeignNetwork, foreign: Foreign, tolerance: float
) -> list[VerificationInputs]:
    """The kinds of input, held-out patterns always among them, on which the foreign network can be compared.

    The others are logged: those on which the foreign network itself is not finite and, if Fourier operators were
    replaced, those on which rounding alone changes its output by more than the tolerance.
    """
    generator = np.random.RandomState(0)
    kept = [inputs[0]]
    for kind in inputs[1:]:
        (patterns,) = kind.arrays
        output = native(patterns)
        if not np.isfinite(output).all():
            _log.warning("%s returns NaN or infinity for %s inputs (%s)", foreign.name, kind.kind, kind.rule)
            continue
        if foreign.replaced_dft:
            rounding = generator.uniform(-_ROUNDING, _ROUNDING, patterns.shape).astype(np.float32)
            change = relative_difference(native(patterns * (1 + rounding)), output)
            if change > tolerance:
                _log.info(
                    "%s is not compared on %s inputs (%s): its own output changes by %.1e if they change by %.0e",
                    foreign.name,
                    kind.kind,
                    kind.rule,
                    change,
                    _ROUNDING,
                )
                continue
        kept.append(kind)
    return kept


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


def _adopted_contract(
    original: onnx.ModelProto, foreign: Foreign, specification: Specification, verified: VerifiedGraph
) -> Contract:
    """The contract, without hash and reference pair, of the foreign graph as it was read and as it was adopted."""
    window = patch_geometry(specification).window
    is_whole = window == specification.n
    weights = [tensor for tensor in original.graph.initializer if tensor.data_type in _FLOATING]
    producer = f"{original.producer_name} {original.producer_version}".strip() or "an unknown exporter"
    steps = [name for name, _, _ in specification.resolved_steps()[:-1]]
    return Contract(
        label=specification.label,
        architecture=specification.architecture,
        n=specification.n,
        batch=foreign.batch,
        input=NetworkInput(scale=1.0, scale_rule=f"steps in the graph: {', '.join(steps) or 'none'}"),
        stitching=Stitching(
            weighting=specification.stitching or ("probe" if is_whole else "crop"),
            window=None if is_whole else window,
        ),
        probe=TrainingProbe(sha256=None, modes=0, flux=specification.flux),
        provenance=Provenance(
            framework="foreign",
            versions=foreign.versions,
            git_commit=None,
            parameters=sum(int(np.prod(tensor.dims)) for tensor in weights),
            origin=specification.origin,
        ),
        conversion=Conversion(
            exporter=f"{producer}, adopted",
            opset=opset_of(verified.model),
            ir_version=verified.model.ir_version,
            lowering="DFT as products with constant matrices" if foreign.replaced_dft else foreign.lowering,
            passes=[*foreign.changes, *verified.passes],
            operators_before=dict(sorted(operators(original).items())),
        ),
        parity=verified.report.parity(),
    )
