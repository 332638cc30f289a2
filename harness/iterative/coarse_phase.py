"""Correction of a phase that varies slowly, on a coarse grid between two epochs.

Updates of one window at a time pass a phase on from window to window, so an error that extends over many windows takes
many epochs. Multigrid methods meet the same in any local relaxation, and correct such errors on a coarse grid (Brandt,
Mathematics of Computation 31, 333, 1977).

In one window a slow error of the phase is a ramp with the slope g. A ramp moves the pattern, so the amplitudes A tell
it: with the exit wave psi, its far field Psi = F psi, and x from the middle of the window,

    J = dA / dg = Re(conj(Psi) F(i x psi)) / A

The phase phi on the grid is the one whose slopes explain what the patterns of an epoch differed by, r = measured - A:

    argmin_phi sum over patterns |J grad phi - r|^2
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsmr

__all__ = ["CoarsePhase"]

# A ridge on each slope, in units of the mean information: momentum corrects slow phases too.
_RIDGE = 1.0
# Variance of an amplitude by counting noise, and how many times what it alone would give is not corrected.
_NOISE, _NOT_CORRECTED = 0.25, 2.0
# Steps of the solver. What they leave is for the next epoch.
_STEPS = 20


class CoarsePhase:
    """Cubic splines on a coarse grid that covers an object.

    Parameters
    ----------
    shape
        Of the object, (rows, columns).
    centres
        [n, 2], (row, column) of the middle of each window in pixels of the object.
    spacing
        Between two points of the grid in pixels; about the width of the beam.
    information
        J^T J of each pattern, [n, 2, 2].
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        centres: NDArray[np.float64],
        spacing: float,
        information: NDArray[np.float64],
    ) -> None:
        # A spline reaches two points to either side.
        self._grid = tuple(int(length / spacing) + 4 for length in shape)
        self._rows, self._columns = (
            _matrix(*_splines(np.arange(length) / spacing)[:2], count)
            for length, count in zip(shape, self._grid, strict=True)
        )
        (first_row, row, row_slope), (first_column, column, column_slope) = (
            _splines(axis / spacing) for axis in centres.T
        )
        places = (first_row[:, :, None] * self._grid[1] + first_column[:, None, :]).reshape(-1, 16)
        slopes = np.stack(
            [row_slope[:, :, None] * column[:, None, :], row[:, :, None] * column_slope[:, None, :]], axis=1
        ).reshape(-1, 2, 16)
        ridge = _RIDGE * np.trace(information.mean(axis=0)) / 2 + np.finfo(np.float32).tiny
        # With L L^T = J^T J, |J g - r|^2 is |L^T g - L^-1 J^T r|^2 and a constant.
        self._lower = np.linalg.cholesky(information + ridge * np.eye(2))
        weighted = np.swapaxes(self._lower, 1, 2) @ slopes / spacing
        self._matrix = _matrix(
            np.repeat(places, 2, axis=0), weighted.reshape(-1, 16), self._grid[0] * self._grid[1]
        )

    def factor(self, pulls: NDArray[np.float64]) -> NDArray[np.complex64] | None:
        """What the object is multiplied by, complex64 [rows, columns], for J^T r of each pattern, [n, 2].

        None if the patterns tell hardly more than their noise would.
        """
        wanted = np.linalg.solve(self._lower, pulls[:, :, None]).ravel()
        explained, noise = np.sum(wanted**2), _NOISE * wanted.size
        share = 1 - _NOT_CORRECTED * noise / max(explained, noise)
        if share <= 0:
            return None
        phase = lsmr(self._matrix, share * wanted, maxiter=_STEPS)[0].reshape(self._grid)
        return np.exp(1j * (self._rows @ phase @ self._columns.T)).astype(np.complex64)


def _splines(
    places: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """The four cubic splines that reach each of n places, in units of the grid: number, value and slope, all [n, 4]."""
    first = np.floor(places).astype(np.intp)
    u = places - first
    values = np.stack([(1 - u) ** 3, 4 - 6 * u**2 + 3 * u**3, 1 + 3 * (u + u**2 - u**3), u**3], axis=1) / 6
    slopes = np.stack([-((1 - u) ** 2), u * (3 * u - 4), 1 + 2 * u - 3 * u**2, u**2], axis=1) / 2
    return first[:, None] + np.arange(4), values, slopes


def _matrix(columns: NDArray[np.intp], values: NDArray[np.float64], width: int) -> csr_array:
    """A matrix with the given places and values in each row."""
    height, in_a_row = columns.shape
    starts = np.arange(height + 1) * in_a_row
    return csr_array((values.ravel(), columns.ravel(), starts), shape=(height, width))
