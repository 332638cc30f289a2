"""From a float32 artifact to one of lower precision that reconstructs as well, or to none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.publication import publish, stamp
from ptychonnx.export.portability import require as require_target
from ptychonnx.export.precision.cost_text import reduction_lines
from ptychonnx.export.precision.fp16 import half_precision
from ptychonnx.export.precision.int8 import eight_bit
from ptychonnx.export.precision.reducible_layers import Reduction, describe_layer, with_named_nodes
from ptychonnx.export.precision.sensitivity import fewest_in_float, sensitivities
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.runtime.contract import Contract, Quality
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours, group_offsets

__all__ = ["Judge", "Precision", "ReducedArtifact", "reduce_artifact"]

Precision = Literal["fp16", "int8"]
# Given the files of the parent and of a candidate; raises VerificationError with the figures if it refuses.
Judge = Callable[[Path, Path], Quality]

_BATCH = 8


@dataclass(frozen=True)
class ReducedArtifact:
    """A published artifact of lower precision.

    Attributes
    ----------
    path
        The file.
    contract
        What was stamped into it: precision, layers in float32, quality.
    layers
        Layers that could be reduced, kept or not, as a reader knows them: node, and weights if they have a name.
    sensitivity
        How much the output changes when one layer alone is reduced, by node; empty if all could be.
    bytes_before, bytes_after
        Sizes of the two files.
    """

    path: Path
    contract: Contract
    layers: Mapping[str, str]
    sensitivity: Mapping[str, float]
    bytes_before: int
    bytes_after: int

    def lines(self) -> list[str]:
        """What was reduced, what was kept, and what it cost, as lines of text."""
        return reduction_lines(
            self.contract, self.layers, self.sensitivity, (self.bytes_before, self.bytes_after)
        )


def reduce_artifact(
    parent: Path,
    out: Path,
    precision: Precision,
    scan: Scan,
    judge: Judge,
    *,
    patterns: int = 64,
    require: Sequence[str] = (),
    progress: Callable[[str], None] = lambda step: None,
) -> ReducedArtifact:
    """Reduce as many layers as the judge accepts, and write `out`.

    All layers are tried first. If that is refused, those whose reduction alone changes the output most stay in
    float32, as few as will do.

    Parameters
    ----------
    parent
        A float32 artifact.
    out
        File to write; it appears complete and accepted, or not at all.
    precision
        ``fp16`` or ``int8``.
    scan
        Patterns to calibrate with, and to measure the sensitivity of layers on.
    judge
        Compares the reconstructions of a candidate with those of the parent, such as `PrecisionGate` on
        some scan. Raises VerificationError if the candidate is too poor.
    patterns
        How many patterns of the scan to calibrate with, evenly spread over it.
    require
        Targets on which every node of the reduced graph must run, see `ptychonnx.export.portability`.
    progress
        Called with what is done next, in words.

    Raises
    ------
    InputError
        If the parent is no float32 artifact, the scan does not fit it, or it has nothing to reduce.
    VerificationError
        If not even one layer can be reduced, or a required target lacks a node; nothing is written.
    """
    parent, out = Path(parent), Path(out)
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name that ends in .onnx")
    if patterns < 1:
        raise InputError(f"patterns is {patterns}, expected at least 1")
    session = Session(parent, "cpu")
    contract = session.contract
    if contract.conversion.precision != "fp32":
        raise InputError(f"{parent}: is {contract.conversion.precision} already, expected a float32 artifact")
    session.check_scan(scan)
    model = with_named_nodes(onnx.load(parent))
    batches = _batches(contract, scan, patterns)
    if not np.isfinite(open_onnxruntime(model.SerializeToString())(*batches[0])).all():
        raise InputError(f"{parent}: gives NaN or infinity for {scan.name}, expected a network that works")
    progress(f"Calibrating {precision}")
    reduction = half_precision(model) if precision == "fp16" else eight_bit(model, batches)
    if not reduction.layers:
        raise InputError(f"{parent}: no convolution or matrix product to reduce to {precision}")

    trials = _Trials(parent, contract, precision, reduction, judge, progress)
    kept: list[str] | None = []
    sensitivity: dict[str, float] = {}
    if not trials.accepted([]):
        sensitivity = sensitivities(
            model,
            reduction,
            batches[0],
            lambda done, total: progress(f"Measuring the sensitivity of layer {done} of {total}"),
        )
        kept = fewest_in_float(sensitivity, trials.accepted)
    if kept is None:
        count = len(reduction.layers)
        raise VerificationError(
            f"{precision}: refused even with {count - 1} of {count} layers in float32: {trials.refusal}"
        )
    stamped = trials.publish(kept, out, require)
    return ReducedArtifact(
        path=out,
        contract=stamped,
        layers={layer: describe_layer(model, layer) for layer in reduction.layers},
        sensitivity=sensitivity,
        bytes_before=parent.stat().st_size,
        bytes_after=out.stat().st_size,
    )


@dataclass
class _Trials:
    """Candidates with more or fewer layers in float32, and what the judge said of them."""

    parent: Path
    contract: Contract
    precision: Precision
    reduction: Reduction
    judge: Judge
    progress: Callable[[str], None]
    refusal: str = ""
    quality: dict[int, Quality] = field(default_factory=dict)

    def accepted(self, kept: Sequence[str]) -> bool:
        """Whether the judge takes a network with these layers in float32; keeps what it said."""
        self.progress(
            f"Judging {self.precision} with {len(kept)} of {len(self.reduction.layers)} layers in float32"
        )
        model = self.reduction.emulate(self._reduced(kept))
        try:
            self.quality[len(kept)] = self._judge(model, self._contract(kept))
        except VerificationError as error:
            self.refusal = str(error)
            return False
        return True

    def publish(self, kept: Sequence[str], out: Path, targets: Sequence[str]) -> Contract:
        """Write the network with these layers in float32, which was accepted, and check the file."""
        model = self.reduction.build(self._reduced(kept))
        for target in targets:
            require_target(model, target)
        contract = self._contract(kept)
        if self.reduction.emulate is not self.reduction.build:
            # What was accepted was an emulation of this graph.
            self._judge(model, contract)
        return publish(model, contract.model_copy(update={"quality": self.quality[len(kept)]}), out)

    def _reduced(self, kept: Sequence[str]) -> list[str]:
        return [layer for layer in self.reduction.layers if layer not in kept]

    def _judge(self, model: onnx.ModelProto, contract: Contract) -> Quality:
        with tempfile.TemporaryDirectory() as folder:
            candidate = Path(folder) / "candidate.onnx"
            candidate.write_bytes(stamp(model, contract))
            return self.judge(self.parent, candidate)

    def _contract(self, kept: Sequence[str]) -> Contract:
        conversion = self.contract.conversion.model_copy(
            update={
                "precision": self.precision,
                "float_layers": [layer for layer in self.reduction.layers if layer in kept],
            }
        )
        # Parity and the proof of the weights are about the parent, which the quality names.
        return self.contract.model_copy(
            update={
                "conversion": conversion,
                "graph_sha256": None,
                "parity": None,
                "weights": None,
                "reference": None,
            }
        )


def _batches(contract: Contract, scan: Scan, patterns: int) -> list[tuple[NDArray, ...]]:
    """Inputs of the network, evenly spread over a scan, in batches that it takes."""
    groups = group_neighbours(scan.positions, contract.gridsize)
    chosen = np.unique(np.linspace(0, len(groups) - 1, min(patterns, len(groups))).round().astype(np.intp))
    given: NDArray = scan.diffraction[groups[chosen]]
    if contract.input.domain == "counts":
        counts = np.rint(np.square(given, dtype=np.float64))
        given = np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)
    inputs = [given]
    if contract.offsets is not None:
        inputs.append(group_offsets(scan.positions, groups[chosen]))
    size = contract.batch or _BATCH
    return [
        # A fixed batch is filled up from the start again.
        tuple(each.take(range(start, start + size), axis=0, mode="wrap") for each in inputs)
        for start in range(0, len(given), size)
    ]
