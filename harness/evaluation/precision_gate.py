"""Quality gate for reduced precision: an artifact may not reconstruct worse than its float32 parent."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ptychonnx.harness.evaluation.judge import summarise
from ptychonnx.harness.evaluation.results import ScanSummary
from ptychonnx.harness.metrics.comparison import Comparison, MetricSet, compare
from ptychonnx.runtime.contract import Quality
from ptychonnx.runtime.contract.integrity import graph_sha256
from ptychonnx.runtime.errors import InputError, PtychonnxError, VerificationError
from ptychonnx.runtime.inference import Predictor, Session
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan

__all__ = ["AllowedDecrease", "PrecisionGate", "excessive_decreases", "gate_metrics"]

# Cut-off of a curve that never falls below the threshold, in cycles per pixel.
_NYQUIST = 0.5


@dataclass(
    frozen=True, config=ConfigDict(extra="forbid", title="Judgement of a lower precision (fp16, int8)")
)
class AllowedDecrease:
    """Allowed decrease of each metric below that of the parent; the same for amplitude and phase.

    The defaults are about the smallest differences that are visible in a table. For the cut-off this is one Fourier
    ring of an image of 100 pixels.

    * `pearson`, `ssim`: correlation with the reference, structural similarity.
    * `frc_cutoff`: frequency at which the Fourier ring correlation falls below 0.5, in cycles per pixel.
    """

    pearson: float = Field(
        default=0.005,
        ge=0,
        description="Largest decrease of the Pearson correlations",
        json_schema_extra={"flag": "--pearson-fall"},
    )
    ssim: float = Field(
        default=0.01,
        ge=0,
        description="Largest decrease of SSIM",
        json_schema_extra={"flag": "--ssim-fall"},
    )
    frc_cutoff: float = Field(
        default=0.01,
        ge=0,
        description="Largest decrease of the FRC cut-offs, in cycles per pixel",
        json_schema_extra={"flag": "--frc-fall"},
    )


class PrecisionGate:
    """Judge artifacts of reduced precision by the reconstruction of one scan.

    Candidate and parent are stitched and compared with the reference of the scan as in `evaluate`; the parent is
    reconstructed only once. If the scan has no reference, or the reconstruction of the parent has collapsed so that a
    decrease would not show, the reconstruction of the parent is the reference.

    """

    def __init__(self, scan: Scan, allowed: AllowedDecrease | None = None) -> None:
        self._scan = scan
        self._allowed = asdict(allowed or AllowedDecrease())
        self._parents: dict[Path, tuple[ScanSummary, Quality]] = {}

    def __call__(self, parent: Path, candidate: Path) -> Quality:
        """`judge` the artifact in a file."""
        return self.judge(parent, Session(Path(candidate), "cpu"))

    def judge(self, parent: Path, candidate: Predictor) -> Quality:
        """Reconstruct the scan with a candidate and compare its metrics with those of the parent.

        Raises InputError if an artifact cannot be used or does not fit the scan, the reconstruction of the parent is
        not finite, or no metric is defined on this scan. Raises VerificationError if a metric decreased by more than is
        allowed or became undefined, or the reconstruction of the candidate is not finite.

        Returns metrics of both. A metric that is not defined for the parent is not judged.
        """
        parent = Path(parent)
        if parent not in self._parents:
            self._parents[parent] = self._measure(parent)
        summary, parent_quality = self._parents[parent]
        stitched = reconstruct(candidate, self._scan).stitched
        comparison = _compare(stitched.object, summary)
        if comparison.alignment is None:
            raise VerificationError(f"quality: the reconstruction of {self._scan.name} holds NaN or infinity")
        quality = parent_quality.model_copy(update={"artifact": gate_metrics(comparison)})
        if reasons := excessive_decreases(quality):
            raise VerificationError(f"quality: {'; '.join(reasons)} (on {quality.scan})")
        return quality

    def verdict(self, parent: Path, candidate: Predictor) -> str:
        """``accepted``, or why `judge` refuses a candidate."""
        try:
            self.judge(parent, candidate)
        except PtychonnxError as error:
            return f"refused: {error}"
        return "accepted"

    def _measure(self, parent: Path) -> tuple[ScanSummary, Quality]:
        """The reference for candidates, and the metrics of the parent."""
        session = Session(parent, "cpu")
        reconstruction = reconstruct(session, self._scan)
        summary = summarise(self._scan, [reconstruction])
        image, against = reconstruction.stitched.object, "its reference"
        if not np.isfinite(image[summary.region]).all():
            raise InputError(
                f"{parent}: returns NaN or infinity for {self._scan.name}, expected finite values"
            )
        if summary.reference is None or _compare(image, summary).collapsed:
            summary = replace(summary, reference=image)
            against = "the reconstruction of the float32 artifact"
        metrics = gate_metrics(_compare(image, summary))
        if all(value is None for value in metrics.values()):
            raise InputError(
                f"{self._scan.name}: neither Pearson correlation nor SSIM nor FRC is defined, expected an object with "
                "some contrast"
            )
        quality = Quality(
            parent_sha256=session.contract.graph_sha256 or graph_sha256(onnx.load(parent)),
            scan=f"{self._scan.name}, {len(self._scan)} patterns, against {against}",
            parent=metrics,
            artifact=metrics,
            allowed_fall={name: self._allowed[name.partition("_")[2]] for name in metrics},
        )
        return summary, quality


def gate_metrics(comparison: Comparison) -> dict[str, float | None]:
    """Pearson correlation, SSIM and FRC cut-off of amplitude and phase; None where not defined.

    The cut-off of a Fourier ring correlation that never falls below 0.5 is the Nyquist frequency.
    """
    return {
        f"{quantity}_{name}": value
        for quantity, metrics in (("amplitude", comparison.amplitude), ("phase", comparison.phase))
        for name, value in (
            ("pearson", metrics.pearson),
            ("ssim", metrics.ssim),
            ("frc_cutoff", _cutoff(metrics)),
        )
    }


def excessive_decreases(quality: Quality) -> list[str]:
    """Sentences about the metrics that decreased by more than is allowed."""
    reasons = []
    for name, before in quality.parent.items():
        after, allowed = quality.artifact[name], quality.allowed_fall[name]
        label = name.replace("_", " ")
        if before is None:
            continue
        if after is None:
            reasons.append(f"{label} was {before:.4f} and is no longer defined")
        elif not before - after <= allowed:
            reasons.append(
                f"{label} fell by {before - after:.2g}, from {before:.4f} to {after:.4f}, allowed {allowed:g}"
            )
    return reasons


def _cutoff(metrics: MetricSet) -> float | None:
    if metrics.frc is None:
        return None
    return _NYQUIST if metrics.frc.cutoff_half is None else metrics.frc.cutoff_half


def _compare(image: NDArray[np.complex64], summary: ScanSummary) -> Comparison:
    assert summary.reference is not None
    return compare(image, summary.reference, summary.region)
