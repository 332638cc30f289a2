"""Which of the eight orientations of the patterns explains a scan best.

A few epochs of rPIE (Maiden, Johnson and Li, Optica 4, 736, 2017) run on a part of the scan for each orientation, with
the probe held. Only in the right one do overlapping patterns agree about the object, so its error is the lowest.
Flipped and exchanged axes of the positions are the same eight, with the probe in the orientation of the patterns; they
are tried too unless the probe looks the same.

The update is written out here, in NumPy and at whole pixels: `harness.iterative` needs torch, which a beamline's
computer need not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2
from scipy.spatial import KDTree

from ptychonnx.harness.check.finding import Finding
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import illumination
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, orient_pattern
from ptychonnx.runtime.scan.probe_geometry import probe_diameter

__all__ = ["OrientationErrors", "orientation_errors", "orientation_finding"]

_PATTERNS, _EPOCHS, _ALPHA = 64, 8, 0.3
# Places that are tried for the part of the scan with the most structure.
_PLACES = 5
_FEWEST = 9
# Below these odds two orientations explain the patterns equally well. Errors are uncertain by a part of themselves,
# since a few epochs do not end at the minimum.
_ODDS, _UNCERTAIN = 20.0, 0.02
# The differences are not quite normal: larger odds would claim more than a part of one scan can show.
_LARGEST_ODDS = 1000.0
# A probe that differs less from itself in another orientation looks the same.
_SYMMETRIC = 0.1


@dataclass(frozen=True)
class OrientationErrors:
    """Errors of each orientation in the last epoch.

    Attributes
    ----------
    errors
        float64 [m] for each orientation of the patterns, and for changes of the positions, which begin with
        ``positions``: squared error of each pattern over its photons.
    independent
        Number of patterns that would not overlap, at most m: as many errors are independent.
    """

    errors: dict[str, NDArray[np.float64]]
    independent: float

    @property
    def ranked(self) -> list[str]:
        """Orientations, the best first."""
        return sorted(self.errors, key=lambda name: float(self.errors[name].mean()))

    def error(self, name: str) -> float:
        """Relative error of the amplitudes, 0 to 1."""
        return float(np.sqrt(self.errors[name].mean()))

    def odds(self, first: str, second: str) -> float:
        """Odds that `first` explains the patterns better than `second`.

        From the paired difference of their errors over the patterns, taken as normal.
        """
        difference = self.errors[second] - self.errors[first]
        sampling = float(difference.std()) / math.sqrt(self.independent)
        deviation = math.hypot(sampling, _UNCERTAIN * float(self.errors[first].mean())) or 1.0
        wrong = 0.5 * math.erfc(float(difference.mean()) / deviation / math.sqrt(2))
        return min((1 - wrong) / max(wrong, 1e-300), _LARGEST_ODDS)


def orientation_errors(scan: Scan, progress: Progress = SILENT) -> OrientationErrors:
    """Iterate a part of a scan that has a probe in all eight orientations of its patterns and of its positions."""
    assert scan.probe is not None
    part = _part(scan)
    amplitudes = np.asarray(scan.diffraction[part], dtype=np.float32)
    valid = np.ones((scan.size, scan.size), dtype=bool) if scan.mask is None else scan.mask
    positions = scan.positions[part]
    probe = scan.settled().probe
    assert probe is not None
    candidates = {name: (name, probe) for name in ORIENTATIONS}
    for name in ORIENTATIONS:
        turned = np.ascontiguousarray(orient_pattern(probe, name))
        if _difference(probe, turned) > _SYMMETRIC:
            candidates[f"positions: {_changed_positions(name)}"] = (name, turned)
    errors = {}
    progress.stage("Trying orientations", len(candidates), "orientations")
    for done, (label, (name, used)) in enumerate(candidates.items(), start=1):
        # The transform of SciPy has DC in the corner.
        oriented = np.fft.ifftshift(orient_pattern(amplitudes, name), axes=(-2, -1))
        mask = np.fft.ifftshift(orient_pattern(valid, name))
        errors[label] = _iterate(oriented, mask, positions, used)
        progress.update(done)
    area = float(np.prod(np.ptp(positions, axis=0) + 1))
    return OrientationErrors(
        errors, float(np.clip(area / (np.pi / 4 * probe_diameter(scan.probe) ** 2), 2, len(part)))
    )


def orientation_finding(scan: Scan, progress: Progress = SILENT) -> Finding:
    """Verdict on the orientation of the patterns as the scan has them."""
    if scan.probe is None:
        return Finding(
            subject="orientation", verdict="unknown", text="the scan has no probe: give one with --probe"
        )
    if len(scan) < _FEWEST or not np.ptp(scan.positions, axis=0).all():
        text = f"takes at least {_FEWEST} patterns in two directions"
        return Finding(subject="orientation", verdict="unknown", text=text)
    result = orientation_errors(scan, progress)
    best, *others = result.ranked
    equal = [name for name in others if result.odds(best, name) < _ODDS]
    odds = result.odds(best, others[0])
    values = {
        "best": best,
        "odds": odds,
        "errors": {name: result.error(name) for name in result.errors},
    }
    measured = (
        f"error {result.error(best):.3f}, next {others[0]} {result.error(others[0]):.3f}, odds "
        f"{'over ' if odds == _LARGEST_ODDS else ''}{odds:.3g} to 1"
    )
    if "identity" in equal or (best == "identity" and equal):
        names = ", ".join([best, *equal])
        text = f"ambiguous: {names} explain the patterns equally well ({measured})"
        return Finding(subject="orientation", verdict="doubtful", text=text, values=values)
    if best == "identity":
        return Finding(subject="orientation", verdict="good", text=f"as it is ({measured})", values=values)
    choice = " or ".join(map(_remedy, [best, *equal]))
    text = f"{choice} explains the patterns better than as it is ({result.error('identity'):.3f}; {measured})"
    return Finding(subject="orientation", verdict="wrong", text=text, values=values)


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


def _difference(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> float:
    """Relative difference of two probes after the best phase."""
    product = float(abs(np.vdot(first, second)) / np.vdot(first, first).real)
    return math.sqrt(max(0.0, 2 - 2 * product))


def _part(scan: Scan) -> NDArray[np.intp]:
    """Neighbouring patterns where they differ most: of several places, the one with the most structure."""
    count = min(_PATTERNS, len(scan))
    tree = KDTree(scan.positions)
    low, high = scan.positions.min(axis=0), scan.positions.max(axis=0)
    best, structure = np.arange(count), -1.0
    middle = (low + high) / 2
    for place in range(_PLACES):
        corner = np.array([place // 2 % 2, place % 2]) if place < _PLACES - 1 else 0.5
        centre = middle + (corner - 0.5) * (high - low) / 2
        part = np.sort(tree.query(centre, count)[1])
        amplitudes = np.asarray(scan.diffraction[part], dtype=np.float64)
        differs = float(amplitudes.var(axis=0).sum() / np.square(amplitudes).mean(axis=0).sum())
        if differs > structure:
            best, structure = part, differs
        if count == len(scan):
            break
    return best


def _iterate(
    amplitudes: NDArray[np.float32],
    valid: NDArray[np.bool_],
    positions: NDArray[np.float64],
    probe: NDArray[np.complex64],
) -> NDArray[np.float64]:
    """Squared relative error [m] of each pattern in the last epoch, before its own update."""
    size = probe.shape[-1]
    corners = np.rint(positions - positions.min(axis=0)).astype(int)
    image = np.ones(corners.max(axis=0) + size, dtype=np.complex64)
    density = illumination(probe)
    step = (probe.conj() / ((1 - _ALPHA) * density + _ALPHA * density.max())).astype(np.complex64)
    power = np.maximum(np.sum(np.square(amplitudes, dtype=np.float64)[:, valid], axis=1), 1e-12)
    errors = np.zeros(len(amplitudes))
    random = np.random.default_rng(0)
    for _ in range(_EPOCHS):
        for index in random.permutation(len(amplitudes)):
            row, column = corners[index]
            window = image[row : row + size, column : column + size]
            waves = fft2(probe * window, norm="ortho")
            predicted = np.sqrt(np.sum(waves.real**2 + waves.imag**2, axis=0))
            measured = np.where(valid, amplitudes[index], predicted)
            errors[index] = np.sum(np.square(measured - predicted, dtype=np.float64)) / power[index]
            change = ifft2(waves * (measured / np.maximum(predicted, 1e-12) - 1), norm="ortho")
            window += np.sum(step * change, axis=0)
    return errors
