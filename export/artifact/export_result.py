"""The result of an export or an adoption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptychonnx.export.artifact.reduced_artifact import ReducedArtifact
from ptychonnx.export.verification.verdict import verdict
from ptychonnx.export.verification.verification_report import VerificationReport
from ptychonnx.runtime.contract import Contract

__all__ = ["ExportResult"]


@dataclass(frozen=True)
class ExportResult:
    """A published artifact.

    Attributes
    ----------
    path
        The file.
    contract
        The contract in the file.
    report
        Everything that was compared, as in the report next to the file. For a lower precision it is about the
        float32 graph.
    reduced
        For a lower precision: which layers stayed in float32, and the quality that was lost.
    """

    path: Path
    contract: Contract
    report: VerificationReport
    reduced: ReducedArtifact | None = None

    def verdict(self) -> list[str]:
        """What was compared, on which inputs, and how well it agreed, as lines of text."""
        lines = verdict(self.contract, self.report)
        return lines if self.reduced is None else lines + self.reduced.lines()
