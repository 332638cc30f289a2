"""Errors of the positions of a scan, from the patches of neighbouring patterns.

Patches are registered to each other by cross-correlation (Guizar-Sicairos, Thurman and Fienup, Optics Letters 33, 156,
2008), weighted with the light that fell on both, and the errors of all positions follow from all pairs at once by least
squares. A pair counts along each direction as much as its patches have structure there, and less if it contradicts the
others. The mean of all positions is kept, since nothing determines it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import lsqr
from scipy.spatial import KDTree

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.reconstruction.reconstruct_options import PositionModel
from ptychonnx.runtime.reconstruction.stitching import patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import overlapping_parts
from ptychonnx.runtime.scan.probe_geometry import probe_diameter

__all__ = ["Shifts", "position_shifts"]

_ROUNDS = 3
# A round that moves positions by less is the last one.
_SETTLED_PX = 0.05
_NEIGHBOURS = 8
_UPSAMPLE = 20
# Fewer pixels in common, along either axis, are not registered.
_FEWEST_PX = 12
_REWEIGHTINGS = 10
_DRIFT_DEGREE = 5
# Pixels with less of the light, of the brightest in common, are not registered.
_FAINT = 0.05
# Larger differences between two neighbours are false peaks of the correlation.
_LARGEST_PX = 16.0

Shifts = NDArray[np.float64]


def position_shifts(scan: Scan, patches: NDArray[np.complex64], model: PositionModel = "free") -> Shifts:
    """Errors of the positions of a scan with a probe, from patches complex [n, N, N] in the order of the patterns.

    Raises InputError if too few patches overlap.

    Returns float64 [n, 2] (row, column), to add to the positions; their mean is 0.
    """
    assert scan.probe is not None
    pairs = _neighbours(scan.positions, probe_diameter(scan.probe))
    basis = _basis(scan.positions, model)
    light = np.sqrt(patch_weight("probe", scan.size, scan.probe))
    shifts = np.zeros(scan.positions.shape)
    for _ in range(_ROUNDS):
        relative, structure = _registered(patches, light, scan.positions + shifts, pairs)
        if not structure.any():
            raise InputError(
                f"{scan.name}: no two patches overlap, expected more overlap to correct positions"
            )
        # Relative errors of the recorded positions.
        relative += shifts[pairs[:, 1]] - shifts[pairs[:, 0]]
        before, shifts = shifts, _solved(relative, structure, pairs, basis, len(scan))
        if np.sqrt(np.mean((shifts - before) ** 2)) < _SETTLED_PX:
            break
    return shifts


def _neighbours(positions: NDArray[np.float64], reach: float) -> NDArray[np.intp]:
    """Pairs [m, 2] of patterns next to each other within a reach."""
    count = min(_NEIGHBOURS + 1, len(positions))
    distances, others = KDTree(positions).query(positions, count, distance_upper_bound=reach)
    first = np.broadcast_to(np.arange(len(positions))[:, None], others.shape)
    reached = np.isfinite(distances) & (others != first)
    pairs = np.sort(np.stack([first[reached], others[reached]], axis=1), axis=1)
    return np.unique(pairs, axis=0).astype(np.intp)


def _basis(positions: NDArray[np.float64], model: PositionModel) -> sparse.csr_matrix:
    """Matrix [2 n, parameters] from the parameters of a model to the errors (row, column) of all positions."""
    count = len(positions)
    if model == "free":
        return sparse.identity(2 * count, format="csr")
    if model == "drift":
        time = np.linspace(-1, 1, count)
        powers = np.polynomial.legendre.legvander(time, min(_DRIFT_DEGREE, count - 1))[:, 1:]
        return sparse.csr_matrix(np.kron(powers, np.eye(2)))
    columns = np.zeros((2 * count, 2))
    for axis in (0, 1):
        steps = np.sign(np.diff(positions[:, axis], prepend=positions[0, axis]))
        moving = np.flatnonzero(steps)
        # A pattern without a step keeps the last direction.
        last = np.searchsorted(moving, np.arange(count), side="right") - 1
        directions = steps[moving[np.maximum(last, 0)]] if len(moving) else np.zeros(count)
        columns[axis::2, axis] = directions / 2
    return sparse.csr_matrix(columns)


def _registered(
    patches: NDArray[np.complex64],
    light: NDArray[np.float64],
    positions: NDArray[np.float64],
    pairs: NDArray[np.intp],
) -> tuple[Shifts, NDArray[np.float64]]:
    """Error of the second position of each pair less that of the first [m, 2], and how well it is known [m, 2, 2]."""
    from scipy.ndimage import fourier_shift
    from skimage.registration import phase_cross_correlation

    corners = np.rint(positions).astype(int)
    # On whole pixels, so that only the errors are left between two patches.
    whole = np.empty_like(patches)
    for index, (patch, fraction) in enumerate(zip(patches, positions - corners, strict=True)):
        whole[index] = np.fft.ifft2(fourier_shift(np.fft.fft2(patch), fraction))
    shifts, structure = np.zeros((len(pairs), 2)), np.zeros((len(pairs), 2, 2))
    for index, (first, second) in enumerate(pairs):
        ours, theirs = overlapping_parts(corners[second] - corners[first], patches.shape[1:])
        window = np.sqrt(light[ours] * light[theirs])
        lit = _lit(window)
        window = window[lit]
        if min(window.shape) < _FEWEST_PX:
            continue
        one, two = (
            _contrast(whole[number][part][lit], window) for number, part in ((first, ours), (second, theirs))
        )
        if not (one.any() and two.any()):
            continue
        shift, error, _ = phase_cross_correlation(one, two, upsample_factor=_UPSAMPLE, normalization=None)
        if np.hypot(*shift) > _LARGEST_PX:
            continue
        shifts[index] = shift
        slopes = np.stack(np.gradient(one))
        energy = np.einsum("irc,jrc->ij", slopes, slopes.conj()).real / np.sum(np.abs(one) ** 2)
        structure[index] = max(0.0, 1 - float(error) ** 2) * energy * float(np.sum(window**2))
    return shifts, structure


def _lit(window: NDArray[np.float64]) -> tuple[slice, slice]:
    """The rectangle around the pixels that are lit."""
    bright = window > _FAINT * window.max(initial=1e-12)
    rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _contrast(patch: NDArray[np.complexfloating], window: NDArray[np.float64]) -> NDArray[np.complexfloating]:
    """A patch less its mean in the window, in the window."""
    mean = np.sum(patch * window) / max(float(np.sum(window)), 1e-12)
    return (patch - mean) * window


def _solved(
    relative: Shifts,
    structure: NDArray[np.float64],
    pairs: NDArray[np.intp],
    basis: sparse.csr_matrix,
    count: int,
) -> Shifts:
    """Errors [n, 2] whose differences are the relative ones, by least squares with Cauchy weights."""
    values, vectors = np.linalg.eigh(structure)
    roots = np.sqrt(np.maximum(values, 0))[:, :, None] * vectors.swapaxes(1, 2)
    rows = np.arange(2 * len(pairs)).reshape(-1, 2, 1)
    columns = 2 * pairs[:, None, :, None] + np.arange(2)
    signs = np.array([-1.0, 1.0])[:, None]
    entries = roots[:, :, None, :] * signs
    matrix = sparse.csr_matrix(
        (
            entries.ravel(),
            (
                np.broadcast_to(rows[..., None], entries.shape).ravel(),
                np.broadcast_to(columns, entries.shape).ravel(),
            ),
        ),
        shape=(2 * len(pairs), 2 * count),
    )
    system = matrix @ basis
    target = np.einsum("pij,pj->pi", roots, relative)
    weights = np.ones(len(pairs))
    shifts = np.zeros((count, 2))
    for _ in range(_REWEIGHTINGS):
        scale = np.repeat(np.sqrt(weights), 2)
        solution = lsqr(sparse.diags(scale) @ system, scale * target.ravel(), atol=1e-8, btol=1e-8)[0]
        shifts = (basis @ solution).reshape(count, 2)
        residual = np.hypot(*(relative - shifts[pairs[:, 1]] + shifts[pairs[:, 0]]).T)
        known = structure.any(axis=(1, 2))
        typical = max(float(np.median(residual[known])), 0.02)
        weights = 1 / (1 + (residual / (2 * typical)) ** 2)
    return shifts - shifts.mean(axis=0)
