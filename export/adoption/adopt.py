"""From an ONNX file of somebody else to an artifact, of which nothing in the harness knows that it is foreign."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.adoption.foreign_graph import foreign_names, patch_sides, wrap
from ptychonnx.export.adoption.numpy_reference import native_network
from ptychonnx.export.adoption.sidecar import Layout, Specification
from ptychonnx.export.artifact.publication import publish
from ptychonnx.export.graph.inspection import check_graph, operators
from ptychonnx.export.graph.opset import DEFAULT_OPSET, LOWEST_OPSET, opset_of, to_opset
from ptychonnx.export.verification.engines import installed_engines
from ptychonnx.export.verification.first_difference import locate
from ptychonnx.export.verification.inputs import amplitude_trials
from ptychonnx.export.verification.verdict import verdict
from ptychonnx.export.verification.verification_report import write_refusal, write_report
from ptychonnx.export.verification.verify import BATCHES, TOLERANCE, VerificationReport, parity_of, verify
from ptychonnx.runtime.contract import (
    Contract,
    Conversion,
    NetworkInput,
    Provenance,
    Stitching,
    TrainingProbe,
)
from ptychonnx.runtime.contract.integrity import check_model_file
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Scan

__all__ = ["AdoptionResult", "adopt"]

_COMPARED = 20


@dataclass(frozen=True)
class AdoptionResult:
    """A published artifact, what was stamped into it, and everything that was compared."""

    path: Path
    contract: Contract
    report: VerificationReport

    def verdict(self) -> list[str]:
        """What was compared, on which inputs, and how well it agreed, as lines of text."""
        return verdict(self.contract, self.report)


def adopt(
    foreign: Path,
    specification: Specification,
    out: Path,
    *,
    scan: Scan | None = None,
    tolerance: float = TOLERANCE,
) -> AdoptionResult:
    """Put what a foreign network needs around its graph, verify the whole, and write `out`.

    Preprocessing, layouts, orientation, pixel size and the step from an exit wave to the object become nodes of the
    graph. The whole is compared, in every engine, with the foreign graph run by itself between the same steps in
    NumPy.

    Parameters
    ----------
    foreign
        An ONNX file of one input float32.
    specification
        See `read_specification`.
    out
        File to write; it appears complete and verified, or not at all, with its report beside it.
    scan
        Patterns to compare on; seeded ones of the specification's flux if None.
    tolerance
        Largest relative error.

    Raises
    ------
    InputError
        If the file is unsafe or no ONNX model, or the specification does not fit it.
    VerificationError
        If a check fails; nothing is written.
    """
    foreign, out = Path(foreign), Path(out)
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name that ends in .onnx")
    model = _read(foreign)
    batch = _check_input(foreign, model, specification)
    original = opset_of(model)
    raised = to_opset(model, max(original, DEFAULT_OPSET if original >= LOWEST_OPSET else LOWEST_OPSET))
    native = native_network(model, specification, batch)
    patterns, origin = _patterns(specification, scan)
    native(patterns[:1])  # says in one line what does not fit
    made = wrap(raised, specification, batch)
    data = made.SerializeToString(deterministic=True)
    check_graph(data, batch=batch)
    report = verify(
        specification.label,
        {name: partial(load, data) for name, load in installed_engines().items()},
        native,
        amplitude_trials(patterns, origin),
        tolerance=tolerance,
        batches=BATCHES if batch is None else (batch,),
        locate=locate(data, lambda *inputs: [], tolerance),
        # How well another engine runs somebody else's network is no fault of the adoption.
        decide="onnxruntime",
    )
    if report.refusals:
        report.raise_on_refusal(f"; all figures are in {write_refusal(report, out)}")
    contract = _contract(model, made, specification, batch).model_copy(update={"parity": parity_of(report)})
    contract = publish(made, contract, out)
    write_report(report, out)
    return AdoptionResult(out, contract, report)


def _read(path: Path) -> onnx.ModelProto:
    check_model_file(path)
    model = onnx.load(path)  # with weights from other files of its folder, which were checked
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    if any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
        used = {node.domain for node in model.graph.node}
        for entry in [entry for entry in model.opset_import if entry.domain not in used | {""}]:
            model.opset_import.remove(entry)
    # The graph has no part of its own inputs: constants of old files stand among them.
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)
    return model


def _check_input(path: Path, model: onnx.ModelProto, specification: Specification) -> int | None:
    """The fixed batch of the foreign graph, or None."""
    try:
        name, _ = foreign_names(model, specification)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    (value,) = (value for value in model.graph.input if value.name == name)
    tensor = value.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InputError(f"{path}: input {name!r} is {kind}, expected float")
    side, _ = patch_sides(specification)
    expected = {"BCNN": [1, side, side], "BNNC": [side, side, 1], "BNN": [side, side]}
    axes = [axis.dim_value for axis in tensor.shape.dim]
    layout: Layout = specification.input.layout
    wanted = expected[layout]
    fits = len(axes) == len(wanted) + 1 and all(
        found in (0, size) for found, size in zip(axes[1:], wanted, strict=True)
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
        chosen = np.unique(np.linspace(0, len(scan) - 1, _COMPARED).round().astype(np.intp))
        return scan.diffraction[chosen][:, None], f"{len(chosen)} patterns of {scan.name}"
    row, column = np.mgrid[:n, :n] - n // 2
    beam = np.exp(-(row**2 + column**2) / (2 * (n / 10) ** 2)) + 1e-4
    # Legacy generators, since their numbers never change.
    generator = np.random.RandomState(0)
    speckle = generator.exponential(size=(_COMPARED, n, n))
    mean = beam * speckle
    counts = generator.poisson(mean * (specification.flux / mean.sum((1, 2), keepdims=True)))
    amplitude = np.sqrt(counts).astype(np.float32)[:, None]
    return amplitude, f"{_COMPARED} seeded speckle patterns of {specification.flux:.3g} photons"


def _contract(
    model: onnx.ModelProto, made: onnx.ModelProto, specification: Specification, batch: int | None
) -> Contract:
    _, window = patch_sides(specification)
    weighting = specification.stitching or ("probe" if window == specification.n else "crop")
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    sizes = [int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type in floating]
    producer = f"{model.producer_name} {model.producer_version}".strip() or "an unknown exporter"
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
            opset=opset_of(made),
            ir_version=made.ir_version,
            lowering="none",
            passes=[],
            operators_before=dict(sorted(operators(model).items())),
        ),
    )
