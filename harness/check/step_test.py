"""Whether steps of another length explain a scan better, as with a wrong unit, pixel size or distance.

A few epochs of rPIE run on a part of the scan for each length, with the probe held. Overlapping patterns agree about
the object only if the distances between them are right.
"""

from __future__ import annotations

import numpy as np

from ptychonnx.harness.check.few_epochs import (
    FEWEST,
    ODDS,
    CandidateErrors,
    errors_after_few_epochs,
    independent_patterns,
    structured_part,
)
from ptychonnx.harness.check.finding import Finding
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["step_errors", "step_finding"]

_FACTORS = (1.0, 0.8, 0.9, 1.1, 1.25)
# A probe of another defocus prefers another length too, but rarely lowers the error to this part.
_CLEARLY = 0.75


def step_errors(scan: Scan, progress: Progress = SILENT) -> CandidateErrors:
    """Iterate a part of a scan that has a probe, with steps of several lengths; candidates are the factors."""
    part = structured_part(scan)
    probe = scan.settled().probe
    assert probe is not None
    # The transform of SciPy has DC in the corner.
    amplitudes = np.fft.ifftshift(np.asarray(scan.diffraction[part], dtype=np.float32), axes=(-2, -1))
    valid = np.ones((scan.size, scan.size), dtype=bool) if scan.mask is None else scan.mask
    errors = {}
    progress.stage("Trying lengths of the steps", len(_FACTORS), "lengths")
    for done, factor in enumerate(_FACTORS, start=1):
        errors[f"{factor:g}"] = errors_after_few_epochs(
            amplitudes, np.fft.ifftshift(valid), factor * scan.positions[part], probe
        )
        progress.update(done)
    return CandidateErrors(errors, independent_patterns(scan, part))


def step_finding(scan: Scan, progress: Progress = SILENT, *, right_way_up: bool = True) -> Finding:
    """Verdict on the length of the steps; unknown unless the orientation is right."""
    if not right_way_up:
        return Finding(subject="steps", verdict="unknown", text="to be tried in the right orientation")
    if scan.probe is None:
        return Finding(
            subject="steps", verdict="unknown", text="the scan has no probe: give one with --probe"
        )
    if len(scan) < FEWEST or not np.ptp(scan.positions, axis=0).all():
        return Finding(
            subject="steps", verdict="unknown", text=f"takes at least {FEWEST} patterns in two directions"
        )
    result = step_errors(scan, progress)
    best, second, *_ = result.ranked
    odds = result.odds(best, "1" if best != "1" else second)
    values = {
        "best": float(best),
        "odds": odds,
        "errors": {name: result.error(name) for name in result.errors},
    }
    if best != "1" and odds >= ODDS:
        text = (
            f"steps {best} times as long explain the patterns better ({result.error(best):.3f} instead of "
            f"{result.error('1'):.3f}): are unit and pixel size (--positions-unit, --pixel-size), and the probe, right?"
        )
        clearly = result.error(best) < _CLEARLY * result.error("1")
        return Finding(subject="steps", verdict="wrong" if clearly else "doubtful", text=text, values=values)
    if odds < ODDS:
        other = second if best == "1" else best
        text = f"steps {other} times as long explain the patterns equally well"
        return Finding(subject="steps", verdict="unknown", text=text, values=values)
    text = f"as long as they should be (error {result.error('1'):.3f}, {second} times {result.error(second):.3f})"
    return Finding(subject="steps", verdict="good", text=text, values=values)
