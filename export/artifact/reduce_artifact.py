"""Reduction: from a float32 artifact to one of lower precision that reconstructs equally well."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.publication import check_name, publish, stamped_bytes
from ptychonnx.export.portability import require as require_target
from ptychonnx.export.precision.fp16 import half_precision
from ptychonnx.export.precision.int8 import calibration_batches, eight_bit
from ptychonnx.export.precision.reducible_layers import Reduction, describe_layer, with_named_nodes
from ptychonnx.export.precision.sensitivity import fewest_in_float, sensitivities
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.verdict import quality_lines
from ptychonnx.runtime.contract import Contract, Quality
from ptychonnx.runtime.errors import InputError, UnsupportedError, VerificationError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["Precision", "QualityGate", "ReducedArtifact", "reduce_artifact"]

Precision = Literal["fp16", "int8"]
# Called with the files of the parent and of a candidate; raises VerificationError with the figures if it refuses.
QualityGate = Callable[[Path, Path], Quality]


@dataclass(frozen=True)
class ReducedArtifact:
    """A published artifact of lower precision, its contract, and the sizes of the two files.

    * `layers`: all layers that can be reduced, for people: the node, and the name of its weights if they have one.
    * `sensitivity`: change of the output when one layer alone is reduced, by node; empty if all layers could be
      reduced.
    """

    path: Path
    contract: Contract
    layers: Mapping[str, str]
    sensitivity: Mapping[str, float]
    bytes_before: int
    bytes_after: int

    def lines(self) -> list[str]:
        """What was reduced, what stayed in float32 and why, and the quality that was lost, as lines of text."""
        conversion, quality = self.contract.conversion, self.contract.quality
        kept = conversion.float_layers
        lines = [
            f"precision: {conversion.precision} in {len(self.layers) - len(kept)} of {len(self.layers)} layers; "
            f"{self.bytes_before / 1e6:.2f} MB -> {self.bytes_after / 1e6:.2f} MB"
        ]
        for layer in kept:
            change = self.sensitivity[layer]
            effect = (
                "causes NaN or infinity"
                if math.isinf(change)
                else f"changes the output by {100 * change:.3g} %"
            )
            lines.append(f"  {self.layers[layer]} stays in float32: its reduction alone {effect}")
        return lines if quality is None else lines + quality_lines(quality)


def reduce_artifact(
    parent: Path,
    out: Path,
    precision: Precision,
    scan: Scan,
    gate: QualityGate,
    *,
    patterns: int = 64,
    require: Sequence[str] = (),
    progress: Progress = SILENT,
) -> ReducedArtifact:
    """Reduce as many layers as the gate accepts, and write `out`.

    All layers are tried first. If that is refused, the layers whose reduction alone changes the output most stay in
    float32, as few of them as possible.

    Raises InputError if the parent is not a float32 artifact, or the scan does not fit it. Raises UnsupportedError if
    the parent has no layer that can be reduced. Raises VerificationError if not even one layer can be reduced, or a
    required target lacks a node; nothing is written.

    * `parent`: a float32 artifact.
    * `scan`, `patterns`: scan for calibration and for the sensitivity of layers, and how many of its patterns are
      taken, evenly spread.
    * `gate`: raises VerificationError if a candidate reconstructs worse than the parent, such as
      `ptychonnx.harness.evaluation.precision_gate.PrecisionGate`.
    """
    parent, out = Path(parent), check_name(out)
    if patterns < 1:
        raise InputError(f"patterns is {patterns}, expected at least 1")
    contract = _parent_contract(parent, scan)
    model = with_named_nodes(onnx.load(parent))
    batches = calibration_batches(contract, scan, patterns)
    if not np.isfinite(open_onnxruntime(model.SerializeToString())(*batches[0])).all():
        raise InputError(f"{parent}: returns NaN or infinity for {scan.name}, expected finite values")
    progress.stage(f"Calibrating {precision}")
    reduction = half_precision(model) if precision == "fp16" else eight_bit(model, batches)
    if not reduction.layers:
        raise UnsupportedError(f"{parent}: has no convolution or matrix product that {precision} can reduce")

    search = _Search(parent, contract, precision, reduction, gate, progress)
    sensitivity, kept = search.layers_in_float(model, batches[0])
    return ReducedArtifact(
        path=out,
        contract=search.publish(kept, out, require),
        layers={layer: describe_layer(model, layer) for layer in reduction.layers},
        sensitivity=sensitivity,
        bytes_before=parent.stat().st_size,
        bytes_after=out.stat().st_size,
    )


def _parent_contract(parent: Path, scan: Scan) -> Contract:
    session = Session(parent, "cpu")
    precision = session.contract.conversion.precision
    if precision != "fp32":
        raise InputError(f"{parent}: is {precision} already, expected a float32 artifact")
    session.check_scan(scan)
    return session.contract


@dataclass
class _Search:
    """Candidates with different layers in float32, and how the gate decided about them."""

    parent: Path
    contract: Contract
    precision: Precision
    reduction: Reduction
    gate: QualityGate
    progress: Progress
    refusal: str = ""
    quality: dict[int, Quality] = field(default_factory=dict)

    def accepts(self, kept: Sequence[str]) -> bool:
        """Whether the gate accepts a network with the layers `kept` in float32."""
        layers = len(self.reduction.layers)
        self.progress.stage(f"Judging {self.precision} with {len(kept)} of {layers} layers in float32")
        model = self.reduction.emulate(self._reduced(kept))
        try:
            self.quality[len(kept)] = self._judge(model, self._contract(kept))
        except VerificationError as error:
            self.refusal = str(error)
            return False
        return True

    def layers_in_float(
        self, model: onnx.ModelProto, inputs: tuple[NDArray, ...]
    ) -> tuple[dict[str, float], list[str]]:
        """Sensitivity of the layers (empty if all can be reduced), and the layers that stay in float32."""
        if self.accepts([]):
            return {}, []
        sensitivity = sensitivities(model, self.reduction, inputs, self.progress)
        kept = fewest_in_float(sensitivity, self.accepts)
        if kept is None:
            count = len(self.reduction.layers)
            raise VerificationError(
                f"{self.precision}: refused even with {count - 1} of {count} layers in float32: {self.refusal}"
            )
        return sensitivity, kept

    def publish(self, kept: Sequence[str], out: Path, targets: Sequence[str]) -> Contract:
        """Write the accepted network with the layers `kept` in float32."""
        model = self.reduction.build(self._reduced(kept))
        for target in targets:
            require_target(model, target)
        contract = self._contract(kept)
        if self.reduction.emulate is not self.reduction.build:
            # The gate accepted an emulation of this graph.
            self._judge(model, contract)
        return publish(model, contract.model_copy(update={"quality": self.quality[len(kept)]}), out)

    def _reduced(self, kept: Sequence[str]) -> list[str]:
        return [layer for layer in self.reduction.layers if layer not in kept]

    def _judge(self, model: onnx.ModelProto, contract: Contract) -> Quality:
        with tempfile.TemporaryDirectory() as folder:
            candidate = Path(folder) / "candidate.onnx"
            candidate.write_bytes(stamped_bytes(model, contract))
            return self.gate(self.parent, candidate)

    def _contract(self, kept: Sequence[str]) -> Contract:
        float_layers = [layer for layer in self.reduction.layers if layer in kept]
        conversion = self.contract.conversion.model_copy(
            update={"precision": self.precision, "float_layers": float_layers}
        )
        # Parity and the proof of the weights hold for the parent, whose hash is in the quality.
        cleared = dict.fromkeys(("graph_sha256", "parity", "weights", "reference"))
        return self.contract.model_copy(update={"conversion": conversion, **cleared})
