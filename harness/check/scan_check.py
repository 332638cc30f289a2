"""A scan, judged before anything is reconstructed from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ptychonnx.harness.check.finding import Finding, FindingVerdict
from ptychonnx.harness.check.geometry_findings import geometry_findings
from ptychonnx.harness.check.orientation_test import orientation_finding
from ptychonnx.harness.check.pattern_findings import pattern_findings
from ptychonnx.harness.check.pattern_statistics import pattern_statistics
from ptychonnx.harness.check.step_test import step_finding
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["ScanCheck", "check_scan"]


@dataclass(frozen=True)
class ScanCheck:
    """Findings about a scan, and the verdict: that of the worst."""

    name: str
    patterns: int
    size: int
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> FindingVerdict:
        """``wrong`` or ``doubtful`` if a finding is, ``good`` otherwise; what is unknown does not count."""
        verdicts = Counter(finding.verdict for finding in self.findings)
        return "wrong" if verdicts["wrong"] else "doubtful" if verdicts["doubtful"] else "good"

    def as_json(self) -> dict[str, Any]:
        """Verdict and findings, by subject."""
        return {
            "scan": self.name,
            "patterns": self.patterns,
            "n": self.size,
            "verdict": self.verdict,
            "findings": {
                finding.subject: {"verdict": finding.verdict, "text": finding.text, "values": finding.values}
                for finding in self.findings
            },
        }


def check_scan(
    scan: StrPath | Scan,
    *,
    probe: StrPath | None = None,
    options: ReadOptions | None = None,
    progress: Progress = SILENT,
) -> ScanCheck:
    """Judge units, photons, detector, positions, probe, orientation and steps of a scan.

    Raises InputError if the file cannot be read at all.

    * `scan`: a scan, or a file for `ptychonnx.runtime.formats.read_scan`.
    * `probe`, `options`: how to read the file.
    * `progress`: receives the stages of the orientations and of the steps, which take longest.
    """
    lines: list[str] = []
    if not isinstance(scan, Scan):
        scan = read_scan(scan, probe=probe, options=options, log=lines.append)
    statistics = pattern_statistics(scan)
    findings = (
        *pattern_findings(scan, statistics, lines),
        *geometry_findings(scan, statistics),
        orientation := orientation_finding(scan, progress),
        step_finding(scan, progress, right_way_up=orientation.verdict != "wrong"),
    )
    return ScanCheck(scan.name, len(scan), scan.size, findings)
