"""Whether steps of another length explain a scan better, as with a wrong unit, pixel size or distance.

A few epochs of rPIE run on a part of the scan for each length, with the probe held. Overlapping patterns agree about
the object only if the distances between them are right.
"""

from __future__ import annotations

import numpy as np

from ptychonnx.harness.check.few_epochs import (
    ODDS,
    CandidateErrors,
    ScatteredPatterns,
    errors_after_few_epochs,
    independent_patterns,
    untestable,
)
from ptychonnx.harness.check.finding import Finding
from ptychonnx.harness.iterative.scan_part import structured_part
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["step_errors", "step_finding"]

_RIGHT = "as they are"
# Lengths of steps along rows and columns; along one of them, as of a stage that is turned or has another unit.
_LENGTHS = {_RIGHT: (1.0, 1.0)}
_LENGTHS |= {f"{factor:g} times as long": (factor, factor) for factor in (0.8, 0.9, 1.1, 1.25)}
_LENGTHS |= {f"{factor:g} times as long along rows": (1.0, factor) for factor in (0.8, 1.25)}
_LENGTHS |= {f"{factor:g} times as long along columns": (factor, 1.0) for factor in (0.8, 1.25)}
# A probe of another defocus prefers another length too, but rarely lowers the error to this part.
_CLEARLY = 0.75


def step_errors(scan: Scan, progress: Progress = SILENT) -> CandidateErrors:
    """Iterate a part of a scan that has a probe, with steps of several lengths."""
    part = structured_part(scan)
    probe = scan.settled().probe
    assert probe is not None
    # The transform of SciPy has DC in the corner.
    amplitudes = np.fft.ifftshift(np.asarray(scan.diffraction[part], dtype=np.float32), axes=(-2, -1))
    errors = {}
    progress.stage("Trying lengths of the steps", len(_LENGTHS), "lengths")
    for done, (name, factors) in enumerate(_LENGTHS.items(), start=1):
        errors[name] = errors_after_few_epochs(
            amplitudes, np.fft.ifftshift(scan.valid_pixels), scan.positions[part] * np.array(factors), probe
        )
        progress.update(done)
    return CandidateErrors(errors, independent_patterns(scan, part))


def step_finding(scan: Scan, progress: Progress = SILENT, *, right_way_up: bool = True) -> Finding:
    """Verdict on the length of the steps; unknown unless the orientation is right."""
    if not right_way_up:
        return Finding("steps", "unknown", "to be tried in the right orientation")
    if reason := untestable(scan):
        return Finding("steps", "unknown", reason)
    try:
        result = step_errors(scan, progress)
    except ScatteredPatterns as error:
        return Finding("steps", "unknown", str(error))
    best, second, *_ = result.ranked
    odds = result.odds(best, _RIGHT if best != _RIGHT else second)
    values = {"best": best, "odds": odds, "errors": {name: result.error(name) for name in result.errors}}
    right = result.error(_RIGHT)
    if odds < ODDS:
        other = second if best == _RIGHT else best
        text = f"steps {other} explain the patterns equally well"
        return Finding("steps", "unknown", text, values)
    if best == _RIGHT:
        text = f"as long as they should be (error {right:.3f}, {second} {result.error(second):.3f})"
        return Finding("steps", "good", text, values)
    text = (
        f"steps {best} explain the patterns better ({result.error(best):.3f} instead of {right:.3f}): are unit and "
        "pixel size (--positions-unit, --pixel-size), and the probe, right?"
    )
    clearly = result.error(best) < _CLEARLY * right
    return Finding("steps", "wrong" if clearly else "doubtful", text, values)
