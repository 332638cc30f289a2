"""Results of an evaluation, and their form in `metrics.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.metrics.bootstrap import Confidence, Interval
from ptychonnx.harness.metrics.comparison import Comparison
from ptychonnx.harness.metrics.ptychopinn_profile import PtychoPinnComparison
from ptychonnx.harness.metrics.reference_placement import ReferencePlacement
from ptychonnx.harness.metrics.region import RegionRecord
from ptychonnx.runtime.contract import Contract, Parity
from ptychonnx.runtime.inference import RequestStatistics
from ptychonnx.runtime.reconstruction.misfit import Misfit

__all__ = ["METRICS_VERSION", "Evaluation", "EvaluationRow", "ScanResult", "ScanSummary"]

METRICS_VERSION = 2
_PLAIN_LIST = re.compile(r"\[\n[^\[\]{}]*\]")


@dataclass(frozen=True)
class ScanSummary:
    """What all rows share on one scan: the reference and the region that is compared.

    * `name`: unique among the scans of an evaluation.
    * `patterns`, `size`: number of patterns and their side N in pixels.
    * `reference`: complex64 [rows, columns] on the canvas, or None.
    * `region`: bool [rows, columns], the pixels that are compared.
    * `region_record`, `placement`: how the region was determined; where the reference lies on the canvas (None without
      a reference).
    * `pixel_size`: in metres, if known.
    """

    name: str
    patterns: int
    size: int
    probe_known: bool
    reference: NDArray[np.complex64] | None
    region: NDArray[np.bool_]
    region_record: RegionRecord
    placement: ReferencePlacement | None
    pixel_size: float | None

    def as_json(self) -> dict[str, Any]:
        """Entry of the scan in `metrics.json`."""
        return {
            "name": self.name,
            "patterns": self.patterns,
            "n": self.size,
            "probe_known": self.probe_known,
            "pixel_size_m": self.pixel_size,
            "reference": None if self.placement is None else self.placement.model_dump(mode="json"),
            "region": self.region_record.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class ScanResult:
    """Result of one method on one scan.

    * `object`: complex64 [rows, columns] on the canvas, aligned to the reference if there is one.
    * `covered`: bool [rows, columns], True where the object is known.
    * `weighting`, `placement`: how patches were stitched; ``none`` if nothing was stitched.
    * `inference_seconds`: time spent in the network and in iterations, without reading and stitching.
    * `comparison`, `ptychopinn`: None without a reference; `ptychopinn` also if it was not requested.
    * `requests`: statistics of the requests to a server; None if the network ran in this process.
    * `misfit`: how well the object explains the patterns; None without a probe.
    * `position_doubt`: what the patches of neighbours say against the positions of a scan without a probe; empty
      otherwise.
    * `halves`: the second half of the scan compared with the first, both reconstructed alone; None if not requested.
    """

    object: NDArray[np.complex64]
    covered: NDArray[np.bool_]
    weighting: str
    placement: str
    synchronised: bool
    inference_seconds: float
    stitching_seconds: float
    patterns: int
    comparison: Comparison | None
    ptychopinn: PtychoPinnComparison | None
    notes: tuple[str, ...]
    requests: RequestStatistics | None = None
    misfit: Misfit | None = None
    position_doubt: str = ""
    halves: Comparison | None = None

    @property
    def ms_per_pattern(self) -> float | None:
        """Milliseconds per pattern, without stitching; None for an object that was reconstructed elsewhere."""
        return 1000 * self.inference_seconds / self.patterns if self.inference_seconds else None

    @property
    def collapsed(self) -> bool:
        """Whether the reconstruction was compared and has collapsed."""
        return self.comparison is not None and self.comparison.collapsed

    def as_json(self, region: RegionRecord) -> dict[str, Any]:
        """Entry of the result in `metrics.json`; every metric is null without a reference."""
        comparison: dict[str, Any] = (
            {} if self.comparison is None else self.comparison.model_dump(mode="json")
        )
        compared_pixels = {key: comparison[key] for key in ("pixels", "rectangle_px") if key in comparison}
        return {
            **{key: comparison.get(key) for key in ("amplitude", "phase", "collapsed", "alignment")},
            "region": region.model_dump(mode="json") | compared_pixels,
            "ptychopinn": None if self.ptychopinn is None else self.ptychopinn.model_dump(mode="json"),
            "weighting": self.weighting,
            "placement": self.placement,
            "synchronised": self.synchronised,
            "timing": {
                "ms_per_pattern": self.ms_per_pattern,
                "inference_seconds": self.inference_seconds,
                "stitching_seconds": self.stitching_seconds,
                "patterns": self.patterns,
                "requests": None if self.requests is None else self.requests.as_json(),
            },
            "misfit": None if self.misfit is None else _misfit(self.misfit),
            "halves": None if self.halves is None else _agreement(self.halves),
            "notes": list(self.notes),
        }


def _misfit(misfit: Misfit) -> dict[str, Any]:
    """Entry of a misfit in `metrics.json`."""
    held_out = None if misfit.held_out is None else misfit.held_out.misfit
    return {
        "value": misfit.value,
        "scattered": misfit.scattered,
        "held_out": held_out and {"value": held_out.value, "scattered": held_out.scattered},
        "noise": misfit.noise and misfit.noise.level,
        "contrast": misfit.noise and misfit.noise.contrast,
        "verdict": misfit.verdict,
    }


def _agreement(halves: Comparison) -> dict[str, Any]:
    """Entry of two halves in `metrics.json`: their ring correlations, and the region."""
    curves = {
        name: None if part.frc is None else part.frc.model_dump(mode="json")
        for name, part in (("amplitude", halves.amplitude), ("phase", halves.phase))
    }
    return curves | {"pixels": halves.pixels, "rectangle_px": list(halves.rectangle_px)}


@dataclass(frozen=True)
class EvaluationRow:
    """Results of one method on every scan.

    * `label`: unique among the rows of an evaluation.
    * `name`: file name of the artifact, URL of the served network, or name of the program.
    * `contract`: None for a method other than an artifact.
    * `provider`: execution provider or device.
    * `results`: by name of the scan, in the order of the scans.
    * `kind`: ``artifact``, ``iterations``, or ``object`` if another program made it.
    * `facts`: settings of a method without a contract, by name.
    """

    label: str
    name: str
    contract: Contract | None
    provider: str
    results: dict[str, ScanResult]
    notes: tuple[str, ...] = ()
    kind: str = "artifact"
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the artifact or network in brackets, empty if the label tells it."""
        stem = self.name.removesuffix(".onnx")
        return "" if self.contract is None or stem == self.label or f"({stem})" in self.label else f"({stem})"

    @property
    def parity(self) -> Parity | None:
        """Difference between the artifact and its native network, if the contract states it."""
        return None if self.contract is None else self.contract.parity

    @property
    def collapsed(self) -> bool | None:
        """Whether any reconstruction collapsed; None if none was compared."""
        compared = [result for result in self.results.values() if result.comparison is not None]
        return any(result.collapsed for result in compared) if compared else None

    def as_json(self, scans: tuple[ScanSummary, ...]) -> dict[str, Any]:
        """Entry of the row in `metrics.json`."""
        contract = self.contract
        entry: dict[str, Any] = {
            "label": self.label if contract is None else contract.label,
            "kind": self.kind,
            "file": self.name,
            "architecture": None if contract is None else contract.architecture,
            "precision": None if contract is None else contract.conversion.precision,
            "provider": self.provider,
            "parity": None if self.parity is None else self.parity.model_dump(mode="json"),
            "facts": dict(self.facts),
            "collapsed": self.collapsed,
        }
        results = {scan.name: self.results[scan.name].as_json(scan.region_record) for scan in scans}
        if len(results) == 1:
            (single,) = results.values()
            return entry | single | {"notes": [*self.notes, *single["notes"]]}
        return entry | {"notes": list(self.notes), "scans": results}


@dataclass(frozen=True)
class Evaluation:
    """Results of every method on every scan.

    * `batch`: patterns in one run of a network; None if each artifact had its own, which a note in its row states.
    * `commands`: commands that reproduce the evaluation.
    * `confidence`: confidence intervals by name of the scan; None where nothing was compared.
    * `software`: version of each package that the results depend on.
    * `processor`: name of the processor that the times were measured on.
    * `failures`: reason for each method that has no row, by label: its result was refused on one of the scans.
    """

    scans: tuple[ScanSummary, ...]
    rows: tuple[EvaluationRow, ...]
    batch: int | None
    commands: tuple[str, ...] = ()
    confidence: Mapping[str, Confidence | None] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    processor: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)

    def intervals(self, row: EvaluationRow, scan: str) -> dict[str, Interval]:
        """Confidence interval of each metric (``amplitude_ssim``) of a row that has one."""
        confidence = self.confidence.get(scan)
        return {} if confidence is None else confidence.intervals.get(row.label, {})

    def as_json(self) -> dict[str, Any]:
        """The content of `metrics.json`.

        With one scan, a row holds its metrics directly: ``rows[label]["amplitude"]["ssim"]``. With several scans, they
        are under ``rows[label]["scans"][name]``.
        """
        scans = []
        for scan in self.scans:
            confidence = self.confidence.get(scan.name)
            scans.append(
                scan.as_json()
                | {"confidence": None if confidence is None else confidence.model_dump(mode="json")}
            )
        return {
            "version": METRICS_VERSION,
            "software": dict(self.software),
            "processor": self.processor,
            "commands": list(self.commands),
            "batch": self.batch,
            "scans": scans,
            "rows": {row.label: row.as_json(self.scans) for row in self.rows},
            "failures": dict(self.failures),
        }

    def to_json(self) -> str:
        """`as_json` as text. NaN and infinity, which JSON does not have, raise ValueError."""
        text = json.dumps(self.as_json(), indent=1, allow_nan=False)
        # Curves are kept on one line, so that a person can read the file.
        return _PLAIN_LIST.sub(lambda match: re.sub(r"\n\s*", " ", match[0]), text) + "\n"
