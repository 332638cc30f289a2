"""Which of the eight orientations of the patterns explains a scan best.

A few epochs of rPIE run on a part of the scan for each orientation, with the probe held. Only in the right one do
overlapping patterns agree about the object, so its error is the lowest. Flipped and exchanged axes of the positions are
the same eight, with the probe in the orientation of the patterns; they are tried too unless the probe looks the same.
"""

from __future__ import annotations

import numpy as np

from ptychonnx.harness.check.few_epochs import (
    LARGEST_ODDS,
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
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, orient_pattern
from ptychonnx.runtime.scan.probe_distance import probe_difference

__all__ = ["orientation_errors", "orientation_finding"]

# A probe that differs less from itself in another orientation looks the same.
_SYMMETRIC = 0.1


def orientation_errors(scan: Scan, progress: Progress = SILENT) -> CandidateErrors:
    """Iterate a part of a scan that has a probe in all eight orientations of its patterns and of its positions.

    The names of those of the positions begin with ``positions``.
    """
    assert scan.probe is not None
    part = structured_part(scan)
    amplitudes = np.asarray(scan.diffraction[part], dtype=np.float32)
    positions = scan.positions[part]
    probe = scan.settled().probe
    assert probe is not None
    candidates = {name: (name, probe) for name in ORIENTATIONS}
    for name in ORIENTATIONS:
        turned = np.ascontiguousarray(orient_pattern(probe, name))
        if probe_difference(probe, turned) > _SYMMETRIC:
            candidates[f"positions: {_changed_positions(name)}"] = (name, turned)
    errors = {}
    progress.stage("Trying orientations", len(candidates), "orientations")
    for done, (label, (name, used)) in enumerate(candidates.items(), start=1):
        # The transform of SciPy has DC in the corner.
        oriented = np.fft.ifftshift(orient_pattern(amplitudes, name), axes=(-2, -1))
        mask = np.fft.ifftshift(orient_pattern(scan.valid_pixels, name))
        errors[label] = errors_after_few_epochs(oriented, mask, positions, used)
        progress.update(done)
    return CandidateErrors(errors, independent_patterns(scan, part))


def orientation_finding(scan: Scan, progress: Progress = SILENT) -> Finding:
    """Verdict on the orientation of the patterns as the scan has them."""
    if reason := untestable(scan):
        return Finding("orientation", "unknown", reason)
    try:
        result = orientation_errors(scan, progress)
    except ScatteredPatterns as error:
        return Finding("orientation", "unknown", str(error))
    best, *others = result.ranked
    equal = [name for name in others if result.odds(best, name) < ODDS]
    odds = result.odds(best, others[0])
    values = {
        "best": best,
        "odds": odds,
        "errors": {name: result.error(name) for name in result.errors},
    }
    measured = (
        f"error {result.error(best):.3f}, next {others[0]} {result.error(others[0]):.3f}, odds "
        f"{'over ' if odds == LARGEST_ODDS else ''}{odds:.3g} to 1"
    )
    if "identity" in equal or (best == "identity" and equal):
        names = ", ".join([best, *equal])
        text = f"ambiguous: {names} explain the patterns equally well ({measured})"
        return Finding("orientation", "doubtful", text, values)
    if best == "identity":
        return Finding("orientation", "good", f"as it is ({measured})", values)
    choice = " or ".join(map(_remedy, [best, *equal]))
    text = f"{choice} explains the patterns better than as it is ({result.error('identity'):.3f}; {measured})"
    return Finding("orientation", "wrong", text, values)


def _remedy(name: str) -> str:
    """The option, or the change, that an orientation stands for."""
    if name.startswith("positions"):
        return f"{name} (--positions-axes, --positions-sign)"
    return f"--orientation {name}"


def _changed_positions(orientation: str) -> str:
    """The change of the positions that equals an orientation of patterns and probe: its inverse."""
    transposed, *flips = ORIENTATIONS[orientation]
    rows, columns = reversed(flips) if transposed else flips
    words = {"rows and columns exchanged": transposed, "rows reversed": rows, "columns reversed": columns}
    return ", ".join(word for word, applies in words.items() if applies)
