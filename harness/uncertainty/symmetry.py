"""Symmetries of the far field: changes of a scan that turn its object, and its patterns with it.

A pattern is ``|F(P O)|``. If probe, object, positions and pattern are flipped or turned alike, the pattern stays that
of the exit wave. If probe and object are complex conjugated, the pattern is inverted through the direct beam, because
``F(conj psi)(k) = conj F(psi)(-k)``. Both are exact: together they are a group of sixteen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.amplitudes import MappedAmplitudes
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, orient_image, orient_pattern

__all__ = ["SYMMETRIES", "Symmetry"]

_INVERSE = {name: name for name in ORIENTATIONS} | {"rot90": "rot270", "rot270": "rot90"}


@dataclass(frozen=True)
class Symmetry:
    """One element of the group.

    * `orientation`: of patterns, probe, positions and object, see `ptychonnx.runtime.scan.orientation.ORIENTATIONS`.
    * `conjugate`: whether probe and object are complex conjugated.
    """

    orientation: str
    conjugate: bool = False

    def scan(self, scan: Scan) -> Scan:
        """The turned scan, without reference; patterns are turned when they are read."""
        return replace(
            scan,
            diffraction=MappedAmplitudes(scan.diffraction, self._pattern),
            positions=scan.positions @ self._matrix.T,
            probe=None if scan.probe is None else self.probe(scan.probe),
            mask=None if scan.mask is None else np.ascontiguousarray(self._pattern(scan.mask)),
            reference=None,
            labels=None,
        )

    def probe(self, probe: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """The turned probe [modes, N, N]; its pixel [N // 2, N // 2] stays."""
        turned = np.ascontiguousarray(orient_pattern(probe, self.orientation))
        return turned.conj() if self.conjugate else turned

    def back(self, stitched: Stitched | StitchedTiles) -> Reference:
        """The object of the turned scan as it lies in the scan."""
        image = np.ascontiguousarray(orient_image(stitched.object, _INVERSE[self.orientation]))
        first = np.asarray(stitched.origin)
        corners = np.stack([first, first + np.subtract(stitched.shape, 1)]) @ self._matrix
        row, column = corners.min(axis=0).tolist()
        return Reference(image.conj() if self.conjugate else image, (row, column))

    @property
    def _matrix(self) -> NDArray[np.float64]:
        """What takes (row, column) to those of the turned scan."""
        transposed, *flips = ORIENTATIONS[self.orientation]
        signs = np.diag([-1.0 if flipped else 1.0 for flipped in flips])
        return signs[:, ::-1] if transposed else signs

    def _pattern(self, patterns: NDArray) -> NDArray:
        turned = orient_pattern(patterns, self.orientation)
        return orient_pattern(turned, "rot180") if self.conjugate else turned


# The first four have as many conjugates as others, and no two of them are neighbours: they tell almost as much as all.
_FIRST = (
    Symmetry("identity"),
    Symmetry("rot180"),
    Symmetry("transpose", conjugate=True),
    Symmetry("antitranspose", conjugate=True),
)
SYMMETRIES = _FIRST + tuple(
    symmetry
    for conjugate in (False, True)
    for name in ORIENTATIONS
    if (symmetry := Symmetry(name, conjugate)) not in _FIRST
)
