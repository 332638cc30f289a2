"""A few epochs of rPIE on a part of a scan, under several readings of it, and how surely one explains it better.

The probe is held, and windows lie at whole pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.check.finding import NO_PROBE
from ptychonnx.harness.iterative.window_updates import WindowUpdates
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.probe_geometry import probe_diameter

__all__ = [
    "LARGEST_ODDS",
    "ODDS",
    "CandidateErrors",
    "ScatteredPatterns",
    "errors_after_few_epochs",
    "independent_patterns",
    "untestable",
]

# Patterns that it takes to tell.
_FEWEST = 9
# Below these odds two candidates explain the patterns equally well.
ODDS = 20.0
_EPOCHS, _ALPHA = 8, 0.3
# Pixels of an object of 512 MiB.
_MOST_PIXELS = 2**26
# Errors are uncertain by a part of themselves, since a few epochs do not end at the minimum.
_UNCERTAIN = 0.02
# The differences are not quite normal: larger odds would claim more than a part of one scan can show.
LARGEST_ODDS = 1000.0


class ScatteredPatterns(InputError):
    """Neighbouring patterns that are too far apart to be tried."""


@dataclass(frozen=True)
class CandidateErrors:
    """Errors of each candidate in the last epoch.

    * `errors`: float64 [m] for each candidate: squared error of each pattern over its photons.
    * `independent`: number of patterns that would not overlap, at most m: as many errors are independent.
    """

    errors: dict[str, NDArray[np.float64]]
    independent: float

    @property
    def ranked(self) -> list[str]:
        """Candidates, the best first."""
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
        return min((1 - wrong) / max(wrong, 1e-300), LARGEST_ODDS)


def untestable(scan: Scan) -> str:
    """Why a few epochs cannot tell anything of a scan; empty if they can."""
    if scan.probe is None:
        return NO_PROBE
    if len(scan) < _FEWEST or not np.ptp(scan.positions, axis=0).all():
        return f"takes at least {_FEWEST} patterns in two directions"
    return ""


def independent_patterns(scan: Scan, part: NDArray[np.intp]) -> float:
    """Number of patterns of a part of a scan with a probe that would not overlap."""
    assert scan.probe is not None
    area = float(np.prod(np.ptp(scan.positions[part], axis=0) + 1))
    return float(np.clip(area / (np.pi / 4 * probe_diameter(scan.probe) ** 2), 2, len(part)))


def errors_after_few_epochs(
    amplitudes: NDArray[np.float32],
    valid: NDArray[np.bool_],
    positions: NDArray[np.float64],
    probe: NDArray[np.complex64],
) -> NDArray[np.float64]:
    """Squared relative error [m] of each pattern in the last epoch, before its own update.

    Raises ScatteredPatterns if the patterns lie on more pixels than neighbours do.

    * `amplitudes`, `valid`: patterns [m, N, N] and their mask [N, N], with the direct beam in the corner.
    * `positions`: [m, 2], (row, column) in pixels; rounded.
    * `probe`: complex [modes, N, N], which is held.
    """
    corners = np.rint(positions - positions.min(axis=0))
    rows, columns = corners.max(axis=0).astype(int) + probe.shape[-1]
    if rows * columns > _MOST_PIXELS:
        raise ScatteredPatterns(
            f"{len(positions)} neighbouring patterns lie on {rows} x {columns} pixels: are some positions missing, or "
            "in another unit (--positions-unit)?"
        )
    vacuum = np.ones((rows, columns), dtype=np.complex64)
    updates = WindowUpdates(vacuum, probe, amplitudes, valid, corners)
    power = np.maximum(np.sum(np.square(amplitudes, dtype=np.float64)[:, valid], axis=1), 1e-12)
    errors = np.zeros(len(amplitudes))
    random = np.random.default_rng(0)
    for _ in range(_EPOCHS):
        for index in random.permutation(len(amplitudes)):
            errors[index] = updates.visit(index, _ALPHA) / power[index]
    return errors
