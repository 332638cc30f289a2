"""Smoothing of an object between epochs by its total variation, for patterns with few photons.

An epoch is followed by the proximal step of total variation (Rudin, Osher and Fatemi, Physica D 60, 259, 1992): the
object O becomes

    argmin_u 1/2 sum |u - O|^2 + weight TV(u),    TV(u) = sum sqrt(|u_down - u|^2 + |u_right - u|^2)

so that what the iterations converge to explains the patterns with as little variation as they allow. It is solved by
fast gradient projections of the dual variable (Beck and Teboulle, IEEE Trans. Image Process. 18, 2419, 2009), which
start from the result of the epoch before, so that a few of them suffice. Real and imaginary part are smoothed together,
so that the global phase does not matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["TotalVariation"]

# Projections after each epoch: as good as twenty without momentum on the objects of benchmarks/counting_noise.py.
_PROJECTIONS = 10
# The inverse of the largest eigenvalue of the differences and their adjoint.
_STEP = 1 / 8


class TotalVariation:
    """Smooths an object between epochs.

    * `shape`: of the object, (rows, columns).
    * `weight`: weight of the total variation, in units of the object; positive.
    """

    def __init__(self, shape: tuple[int, ...], weight: float) -> None:
        self._weight = np.float32(weight)
        # The dual variable: for the differences to the next row and to the next column.
        self._dual = np.zeros((2, *shape), dtype=np.complex64)

    def smooth(self, image: NDArray[np.complex64]) -> None:
        """Smooth an object in place."""
        step = np.float32(_STEP) / self._weight
        before, momentum = self._dual.copy(), 1.0
        for _ in range(_PROJECTIONS):
            smooth = image + self._correction()
            down, right = self._dual
            down[:-1] += step * (smooth[1:] - smooth[:-1])
            right[:, :-1] += step * (smooth[:, 1:] - smooth[:, :-1])
            length = np.sqrt(down.real**2 + down.imag**2 + right.real**2 + right.imag**2)
            self._dual /= np.maximum(length, 1)
            projected, last = self._dual.copy(), momentum
            momentum = (1 + np.sqrt(1 + 4 * last**2)) / 2
            self._dual += np.float32((last - 1) / momentum) * (projected - before)
            before = projected
        self._dual = before
        image += self._correction()

    def _correction(self) -> NDArray[np.complex64]:
        """What is added to the object: the weighted divergence of the dual variable."""
        down, right = self._dual
        divergence = down + right
        divergence[1:] -= down[:-1]
        divergence[:, 1:] -= right[:, :-1]
        divergence *= self._weight
        return divergence
