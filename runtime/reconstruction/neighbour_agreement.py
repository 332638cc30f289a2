"""Do the patches of neighbouring patterns agree about the object that both see, and would they elsewhere?

An object explains the patterns although positions are wrong if little of a patch overlaps with others, or if the object
is weak. Patches tell more: where two of them overlap they show the same object, and only if their distance is right.
Their correlation is compared with that at the opposite distance, at which they have nothing in common but smoothness,
and with that at changed positions: reversed and exchanged axes, and another length of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import sample_of
from ptychonnx.runtime.scan.forward_model import illumination, overlapping_parts
from ptychonnx.runtime.scan.probe_geometry import probe_diameter

__all__ = ["NeighbourAgreement", "NeighbourPatches", "neighbour_agreement", "neighbour_pairs"]

# Distances of these parts of the probe's diameter show errors of the step best.
_DISTANCE = 0.4
# Patterns with whose neighbours patches are compared, at most, and pixels of their patches.
_MOST, _LEAST, _PIXELS = 64, 16, 2**19
_STEPS = (0.8, 0.9, 1.1, 1.25)
_AXES = {
    "rows reversed": ((-1, 0), (0, 1)),
    "columns reversed": ((1, 0), (0, -1)),
    "rows and columns reversed": ((-1, 0), (0, -1)),
    "rows and columns exchanged": ((0, 1), (1, 0)),
    "rows and columns exchanged and reversed": ((0, -1), (-1, 0)),
    "rows and columns exchanged, rows reversed": ((0, -1), (1, 0)),
    "rows and columns exchanged, columns reversed": ((0, 1), (-1, 0)),
}
# Correlation above that at the opposite distance, below which patches have nothing in common, and by which changed
# positions are better: measured on simulated scans, docs/explanation/beams.md.
_NOTHING, _BETTER, _CLEARLY = 0.1, 1.2, 0.05
# Share of the light of a pattern that falls where a neighbour has light, below which nobody can expect agreement.
_LITTLE = 0.05


@dataclass(frozen=True)
class NeighbourAgreement:
    """Correlations of the patches of neighbours, less those at the opposite distance.

    * `value`: with the positions of the scan: 1 if patches agree, about 0 if they have nothing in common.
    * `changed`: with changed positions, by the change.
    * `shared`: mean share of the light of a pattern that falls where the neighbour has light.
    """

    value: float
    changed: Mapping[str, float]
    shared: float

    @property
    def better(self) -> str | None:
        """The change of the positions with which patches agree clearly better; None if there is none."""
        name = max(self.changed, key=lambda change: self.changed[change])
        enough = max(2 * _NOTHING, _BETTER * self.value + _CLEARLY)
        return name if self.changed[name] > enough else None

    @property
    def tells(self) -> bool:
        """Whether patches have anything in common by which positions could be judged."""
        return self.value >= _NOTHING

    @property
    def reason(self) -> str:
        """Why the positions are wrong, or cannot be judged; empty if neither."""
        if (name := self.better) is not None:
            return (
                f"neighbouring patches agree better with {name} ({self.changed[name]:.2f} instead of "
                f"{self.value:.2f}): are the positions right (--positions-axes, --positions-sign, --pixel-size)?"
            )
        if self.tells:
            return ""
        if self.shared < _LITTLE:
            return "neighbouring patches overlap too little"
        return f"neighbouring patches do not agree ({self.value:.2f}): are positions, direct beam, orientation right?"


def neighbour_pairs(scan: Scan) -> NDArray[np.intp]:
    """Pairs [m, 2] of neighbouring patterns, evenly spread over a scan; empty without neighbours."""
    if len(scan) < 2:
        return np.empty((0, 2), dtype=np.intp)
    tree = KDTree(scan.positions)
    step = float(np.median(tree.query(scan.positions, 2)[0][:, 1]))
    distance = max(_DISTANCE * probe_diameter(_beam(scan)), step)
    count = min(len(scan), _MOST, max(_LEAST, _PIXELS // scan.size**2))
    pairs = []
    for first in sample_of(len(scan), count):
        others = np.array(tree.query_ball_point(scan.positions[first], 1.3 * distance), dtype=np.intp)
        offsets = np.abs(scan.positions[others] - scan.positions[first])
        lengths = np.hypot(*offsets.T)
        for axis in (0, 1):
            # The neighbour that lies most nearly along the axis, at about that distance.
            off = np.abs(lengths - distance) + 2 * offsets[:, 1 - axis]
            off[lengths == 0] = np.inf
            if np.isfinite(off).any():
                pairs.append((first, others[int(np.argmin(off))]))
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def neighbour_agreement(
    scan: Scan, pairs: NDArray[np.intp], patches: Mapping[int, NDArray[np.complex64]]
) -> NeighbourAgreement | None:
    """Agreement of patches [N, N] by the number of their pattern; None if no pair of them is known."""
    pairs = np.array([pair for pair in pairs.tolist() if all(number in patches for number in pair)])
    if not len(pairs):
        return None
    light = illumination(_beam(scan)).astype(np.float64)
    offsets = scan.positions[pairs[:, 1]] - scan.positions[pairs[:, 0]]

    @cache
    def at(axes: bytes) -> tuple[float, float]:
        return _correlation(patches, pairs, offsets @ np.frombuffer(axes).reshape(2, 2).T, light)

    def excess(matrix: NDArray[np.float64]) -> float:
        # Most axes are the opposite of others; -0 becomes 0, the bytes of which differ.
        here, opposite = (at((sign * matrix + 0.0).tobytes())[0] for sign in (1, -1))
        return here - opposite

    identity = np.eye(2)
    changes = {name: np.array(matrix, dtype=np.float64) for name, matrix in _AXES.items()}
    changes |= {f"steps {factor:g} times as long": factor * identity for factor in _STEPS}
    shared = at(identity.tobytes())[1]
    return NeighbourAgreement(
        excess(identity), {name: excess(matrix) for name, matrix in changes.items()}, shared
    )


class NeighbourPatches:
    """Keeps the patches of neighbours while a scan is reconstructed.

    `patches`: complex64 [N, N] by the number of their pattern.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan, self._pairs = scan, neighbour_pairs(scan)
        self._compared = set(self._pairs.ravel().tolist())
        self.patches: dict[int, NDArray[np.complex64]] = {}

    def keep(self, numbers: NDArray[np.intp], predicted: NDArray[np.complex64]) -> None:
        """Take those of patches [m, N, N] that have a neighbour, by the numbers [m] of their patterns."""
        for number, patch in zip(numbers.tolist(), predicted, strict=True):
            if number in self._compared:
                self.patches[number] = patch.copy()

    def agreement(self) -> NeighbourAgreement | None:
        """Agreement of the patches so far; None if no pair of them is known."""
        return neighbour_agreement(self._scan, self._pairs, self.patches)


def _beam(scan: Scan) -> NDArray[np.complexfloating]:
    """The probe, or one that lights the middle of the windows, as the beams of most networks do."""
    if scan.probe is not None:
        return scan.probe
    profile = np.hanning(scan.size + 2)[1:-1]
    return np.outer(profile, profile)[None].astype(np.complex64)


def _correlation(
    patches: Mapping[int, NDArray[np.complex64]],
    pairs: NDArray[np.intp],
    offsets: NDArray[np.float64],
    light: NDArray[np.float64],
) -> tuple[float, float]:
    """Correlation of pairs of patches at offsets [m, 2] in pixels, whatever their phases, and share of the light."""
    size, total = len(light), light.sum()
    product = norm = share = 0.0
    distances, number = np.unique(np.rint(offsets).astype(int), axis=0, return_inverse=True)
    for index, (row, column) in enumerate(distances.tolist()):
        if max(abs(row), abs(column)) >= size:
            continue
        here, there = overlapping_parts((row, column), light.shape)
        weight = np.minimum(light[here], light[there]).ravel()
        lit = float(weight.sum())
        alike = pairs[number.ravel() == index]
        share += len(alike) * lit / total
        if not lit:
            continue
        # A raster has few distances, and pairs of one are compared at once.
        for some in np.array_split(alike, -(-len(alike) * weight.size // _PIXELS)):
            one, other = (
                np.stack([patches[pattern][part].ravel() for pattern in some[:, side].tolist()])
                for side, part in enumerate((here, there))
            )
            one, other = (patch - (patch @ weight / lit)[:, None] for patch in (one, other))
            product += float(np.sum(np.abs((one * other.conj()) @ weight)))
            norm += float(np.sum(np.sqrt((np.abs(one) ** 2 @ weight) * (np.abs(other) ** 2 @ weight))))
    return (product / norm if norm else 0.0), share / len(pairs)
