"""The result of an evaluation and its form in `metrics.json`."""

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
from ptychonnx.harness.metrics.reference_placement import Placement
from ptychonnx.harness.metrics.region import RegionRecord
from ptychonnx.runtime.contract import Contract, Parity
from ptychonnx.runtime.inference.latency import RequestStatistics

__all__ = ["METRICS_VERSION", "Evaluation", "Row", "ScanResult", "ScanSummary"]

METRICS_VERSION = 2
_PLAIN_LIST = re.compile(r"\[\n[^\[\]{}]*\]")


@dataclass(frozen=True)
class ScanSummary:
    """A scan that was evaluated.

    Attributes
    ----------
    name
        Unique among the scans of an evaluation.
    reference
        complex64 [rows, columns] on the canvas, or None.
    region
        bool [rows, columns], the pixels that count, the same for every row.
    region_record, placement
        How the region was found; where the reference lies (None without a reference).
    pixel_size
        In metres, if known.
    """

    name: str
    patterns: int
    size: int
    probe_known: bool
    reference: NDArray[np.complex64] | None
    region: NDArray[np.bool_]
    region_record: RegionRecord
    placement: Placement | None
    pixel_size: float | None

    def as_json(self) -> dict[str, Any]:
        """Its entry in `metrics.json`."""
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
    """One row on one scan.

    Attributes
    ----------
    object
        complex64 [rows, columns] on the canvas; aligned to the reference if there is one.
    covered
        bool [rows, columns], where the object is known.
    weighting, placement
        How patches were stitched; in a word, what took the place of it where nothing was stitched.
    inference_seconds
        Time that the network, or whatever made the object, took; reading and stitching not included.
    comparison, ptychopinn
        None without a reference (the latter also if it was not asked for).
    requests
        How the server answered; None if the network ran in this process.
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

    @property
    def ms_per_pattern(self) -> float:
        """Time in milliseconds per pattern, stitching not included."""
        return 1000 * self.inference_seconds / self.patterns

    def as_json(self, region: RegionRecord) -> dict[str, Any]:
        """Its entry in `metrics.json`; every metric is null without a reference."""
        found = None if self.comparison is None else self.comparison.model_dump(mode="json")
        return {
            "amplitude": found and found["amplitude"],
            "phase": found and found["phase"],
            "collapsed": found and found["collapsed"],
            "alignment": found and found["alignment"],
            "region": region.model_dump(mode="json")
            | ({"pixels": found["pixels"], "rectangle_px": found["rectangle_px"]} if found else {}),
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
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Row:
    """One way to reconstruct, and what it did on each scan, in the order of the scans.

    Attributes
    ----------
    name
        Of the file of an artifact, or the URL by which it is served; of the program of another kind of row.
    contract
        What an artifact says of itself; None for a row that is none.
    provider
        Where it ran.
    kind
        ``artifact``, or in one word what else made the object (``iterations``).
    facts
        What a reader should know of a row without a contract, by name.
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
    def parity(self) -> Parity | None:
        """How far the artifact is from the network that it was made of, if it says so."""
        return None if self.contract is None else self.contract.parity

    @property
    def collapsed(self) -> bool | None:
        """Whether any reconstruction collapsed; None if none could be compared."""
        verdicts = [r.comparison.collapsed for r in self.results.values() if r.comparison is not None]
        return any(verdicts) if verdicts else None


@dataclass(frozen=True)
class Evaluation:
    """Every row on every scan.

    `confidence` is by scan, None where nothing could be compared; `software` is the version of each package that the
    figures depend on.

    `batch` is None where each artifact had its own, which is in the notes of its row.
    """

    scans: tuple[ScanSummary, ...]
    rows: tuple[Row, ...]
    batch: int | None
    figures: dict[str, bytes]
    commands: tuple[str, ...] = ()
    confidence: dict[str, Confidence | None] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)

    def intervals(self, row: Row, scan: str) -> dict[str, Interval]:
        """Lowest and highest value of each metric (``amplitude_ssim``) of a row that has an interval."""
        found = self.confidence.get(scan)
        return {} if found is None else found.intervals.get(row.label, {})

    def as_json(self) -> dict[str, Any]:
        """The content of `metrics.json`.

        With one scan a row holds its metrics directly: ``rows[label]["amplitude"]["ssim"]``. With several,
        they are under ``rows[label]["scans"][name]``.
        """
        return {
            "version": METRICS_VERSION,
            "software": dict(self.software),
            "commands": list(self.commands),
            "batch": self.batch,
            "scans": [scan.as_json() | {"confidence": self._confidence(scan.name)} for scan in self.scans],
            "rows": {row.label: self._row_as_json(row) for row in self.rows},
        }

    def to_json(self) -> str:
        """`as_json` as text; NaN and infinity, which JSON does not know, raise."""
        text = json.dumps(self.as_json(), indent=1, allow_nan=False)
        # A curve is a line to read, not a column.
        return _PLAIN_LIST.sub(lambda match: re.sub(r"\n\s*", " ", match[0]), text) + "\n"

    def _confidence(self, scan: str) -> dict[str, Any] | None:
        found = self.confidence.get(scan)
        return None if found is None else found.model_dump(mode="json")

    def _row_as_json(self, row: Row) -> dict[str, Any]:
        contract = row.contract
        entry: dict[str, Any] = {
            "label": row.label if contract is None else contract.label,
            "kind": row.kind,
            "file": row.name,
            "architecture": None if contract is None else contract.architecture,
            "precision": None if contract is None else contract.conversion.precision,
            "provider": row.provider,
            "parity": None if row.parity is None else row.parity.model_dump(mode="json"),
            "facts": dict(row.facts),
            "collapsed": row.collapsed,
        }
        each = {scan.name: row.results[scan.name].as_json(scan.region_record) for scan in self.scans}
        if len(each) == 1:
            (single,) = each.values()
            return entry | single | {"notes": [*row.notes, *single["notes"]]}
        return entry | {"notes": list(row.notes), "scans": each}
