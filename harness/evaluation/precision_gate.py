"""The gate for reduced precision: an artifact may not reconstruct worse than its float32 parent."""

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
from ptychonnx.harness.metrics.region import RegionRule
from ptychonnx.runtime.contract import Quality
from ptychonnx.runtime.contract.integrity import graph_sha256
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference.model import Network
from ptychonnx.runtime.inference.session import DEFAULT_BATCH, Session
from ptychonnx.runtime.reconstruction.reconstruct import reconstruct
from ptychonnx.runtime.scan import Scan

__all__ = ["AllowedFall", "Gate", "falls", "figures", "judge"]

# Cut-off of a curve that never falls below the threshold, in cycles per pixel.
_NYQUIST = 0.5


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AllowedFall:
    """By how much a figure may lie below that of the parent; the same for amplitude and phase.

    The defaults are about the smallest differences that a reader of a table sees. For the cut-off that is one
    Fourier ring of an image of 100 pixels.

    Attributes
    ----------
    pearson, ssim
        Correlation with the reference, structural similarity.
    frc_cutoff
        Frequency at which the Fourier ring correlation falls below 0.5, in cycles per pixel.
    """

    pearson: float = Field(default=0.005, ge=0)
    ssim: float = Field(default=0.01, ge=0)
    frc_cutoff: float = Field(default=0.01, ge=0)


class Gate:
    """Judges candidates by the reconstruction of one scan; their parent is reconstructed once.

    Both are stitched and compared with the reference of the scan, as `evaluation.evaluate` does it. If the scan has
    none, or the parent is so poor on it that a fall would not show (it counts as collapsed), the reference is the
    reconstruction of the parent itself.
    """

    def __init__(
        self,
        scan: Scan,
        allowed: AllowedFall | None = None,
        *,
        region: RegionRule | None = None,
        batch: int = DEFAULT_BATCH,
    ) -> None:
        self._scan, self._batch, self._region = scan, batch, region
        self._allowed = asdict(allowed or AllowedFall())
        self._parents: dict[Path, tuple[ScanSummary, Quality]] = {}

    def __call__(self, parent: Path, candidate: Path) -> Quality:
        """`weigh` the file of a candidate."""
        return self.weigh(parent, Session(Path(candidate), "cpu"))

    def weigh(self, parent: Path, candidate: Network) -> Quality:
        """Reconstruct the scan with a candidate and compare.

        Returns
        -------
        Figures of both. A figure that is not defined for the parent is not judged.

        Raises
        ------
        InputError
            If an artifact cannot be used or does not fit the scan, the parent's reconstruction is not finite, or
            no figure is defined on this scan.
        VerificationError
            If a figure fell by more than is allowed or is not defined any more, or the candidate's reconstruction
            is not finite. The message holds the figures.
        """
        parent = Path(parent)
        if parent not in self._parents:
            self._parents[parent] = self._measure(parent)
        summary, itself = self._parents[parent]
        made = reconstruct(candidate, self._scan, None, self._batch)
        found = _compare(made.stitched.object, summary)
        if found.alignment is None:
            raise VerificationError(f"quality: the reconstruction of {self._scan.name} holds NaN or infinity")
        quality = itself.model_copy(update={"artifact": figures(found)})
        if reasons := falls(quality):
            raise VerificationError(f"quality: {'; '.join(reasons)} (on {quality.scan})")
        return quality

    def _measure(self, parent: Path) -> tuple[ScanSummary, Quality]:
        """What candidates are compared with, and the figures of the parent."""
        session = Session(parent, "cpu")
        made = reconstruct(session, self._scan, None, self._batch)
        summary = summarise(self._scan, [made], self._region)
        image, against = made.stitched.object, "its reference"
        if not np.isfinite(image[summary.region]).all():
            raise InputError(f"{parent}: gives NaN or infinity for {self._scan.name}, expected finite values")
        if summary.reference is None or _compare(image, summary).collapsed:
            summary = replace(summary, reference=image)
            against = "the reconstruction of the float32 artifact"
        found = figures(_compare(image, summary))
        if all(value is None for value in found.values()):
            raise InputError(
                f"{self._scan.name}: neither Pearson correlation nor SSIM nor FRC is defined on it, expected an "
                "object with some contrast"
            )
        quality = Quality(
            parent_sha256=session.contract.graph_sha256 or graph_sha256(onnx.load(parent)),
            scan=f"{self._scan.name}, {len(self._scan)} patterns, against {against}",
            parent=found,
            artifact=found,
            allowed_fall={name: self._allowed[name.partition("_")[2]] for name in found},
        )
        return summary, quality


def judge(parent: Path, candidate: Path, scan: Scan, allowed: AllowedFall | None = None) -> Quality:
    """Judge one candidate; a `Gate` judges several and reconstructs their parent once."""
    return Gate(scan, allowed)(parent, candidate)


def figures(comparison: Comparison) -> dict[str, float | None]:
    """Pearson correlation, SSIM and FRC cut-off of amplitude and phase; None where not defined.

    A Fourier ring correlation that never falls below 0.5 counts as cut off at the Nyquist frequency.
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


def falls(quality: Quality) -> list[str]:
    """What fell by more than is allowed, in words; empty if nothing did."""
    reasons = []
    for name, before in quality.parent.items():
        after, allowed = quality.artifact[name], quality.allowed_fall[name]
        label = name.replace("_", " ")
        if before is None:
            continue
        if after is None:
            reasons.append(f"{label} was {before:.4f} and is not defined any more")
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
