"""Every combination of weighting, placement, phases, order and canvas gives the known object back.

The object is made of harmonics of period 16 that are even about the first border of each 32-pixel patch, and the
patches lie 8 pixels apart. So each patch is even at all its borders whatever their common fraction of a pixel, which
is where Fourier placement is exact; and at one pixel all patches have the same interpolated value, so that neither
bilinear placement nor the mean adds an error to that of one interpolation, and the phases of patches can be found
exactly.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ptychonnx.runtime.reconstruction.stitching import Stitched, Stitcher, patch_weight
from ptychonnx.runtime.reconstruction.stitching.fourier_shift import fourier_matrix
from ptychonnx.runtime.scan.forward_model import illumination
from tests.runtime.conftest import gaussian_probe

SIZE, PERIOD, STEP, GRID = 32, 16, 8, 5
FIRST = np.array([-7.0, 11.0])  # centre of the first window, in whole pixels
FRACTIONS = {"whole": (0.0, 0.0), "fraction": (0.3, 0.65), "one axis": (0.0, 0.5)}
# One unit in the last place of float32, half of which is lost at each rounding.
UNIT = 2.0**-24

# Coefficients of the object: one row for each harmonic along rows, one column along columns.
HARMONICS = np.array([[1.0, 0.12 - 0.05j, 0.02], [0.08 + 0.1j, 0.04j, 0.0], [-0.03j, 0.0, 0.01]])
LARGEST = np.abs(HARMONICS).sum()
# Bound of |f_rr| + |f_cc|: each harmonic at its most.
ORDERS = np.add.outer(np.arange(3) ** 2, np.arange(3) ** 2)
CURVATURE = (np.abs(HARMONICS) * ORDERS).sum() * (2 * np.pi / PERIOD) ** 2


def known(row: np.ndarray, column: np.ndarray, fraction: tuple[float, float]) -> np.ndarray:
    """The object at any coordinates; `row` [h, 1] and `column` [1, w]."""
    corner = FIRST - SIZE // 2 + fraction
    waves = [
        np.cos(2 * np.pi / PERIOD * np.arange(3) * (x - first + 0.5)[..., None])
        for x, first in zip((row[:, 0], column[0]), corner, strict=True)
    ]
    return waves[0] @ HARMONICS @ waves[1].T


def tolerance(placement: str, fraction: tuple[float, float], synchronise: bool) -> float:
    """What rounding and interpolation may cost at most.

    Rounding in single precision: once where a patch is made float32, once for the result, and two sums of N products
    for each axis that is moved by matrices, whose errors grow with the largest row sum of |A|; three operations an
    axis in bilinear interpolation. The phase of a patch is a mean over values, so wrong by no more than two roundings,
    on top of what the patches before are off. Double precision adds nothing to speak of.
    """
    phases = 2 * UNIT * GRID**2 if synchronise else 0.0
    moved = [d for d in fraction if d]
    if placement == "bilinear":
        return CURVATURE / 8 * bool(moved) + LARGEST * (phases + UNIT * (2 + 6 * len(moved)))
    growth = 1.0
    for d in moved:
        matrix = np.empty((SIZE, SIZE), np.float32)
        fourier_matrix(d, np.empty(3 * SIZE - 1, np.float32), matrix)
        growth *= np.abs(matrix).sum(axis=1).max()
    return LARGEST * (phases + UNIT * growth * (2 + (SIZE + 1) * len(moved)))


def assembled(stitched) -> Stitched:
    """The whole object of a result in tiles."""
    image, weight = np.zeros(stitched.shape, np.complex64), np.zeros(stitched.shape)
    for block in stitched.blocks():
        assert not image[block.rows, block.columns].any(), "tiles overlap"
        image[block.rows, block.columns], weight[block.rows, block.columns] = block.object, block.weight
    return Stitched(image, weight, stitched.origin)


@pytest.mark.parametrize("order", ["in order", "shuffled", "one at a time", "batches"])
@pytest.mark.parametrize("synchronise", [False, True])
@pytest.mark.parametrize("placement", ["bilinear", "fourier"])
@pytest.mark.parametrize("weighting", ["probe", "window", "uniform", "crop"])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_oracle_patches_give_the_object_back(fraction, weighting, placement, synchronise, order):
    moved = FRACTIONS[fraction]
    grid = np.array(list(itertools.product(range(GRID), range(GRID))))
    positions = FIRST + moved + STEP * grid
    corners = positions - SIZE // 2
    inside = np.arange(SIZE)
    patches = np.stack([known(r + inside[:, None], c + inside[None], moved) for r, c in corners])
    rng = np.random.default_rng(7)
    turns = np.exp(2j * np.pi * rng.random(len(patches))) if synchronise else np.ones(len(patches))
    sequence = np.arange(len(patches)) if order == "in order" else rng.permutation(len(patches))
    step = {"one at a time": 1, "batches": 7}.get(order, len(patches))
    weight = patch_weight(weighting, SIZE, gaussian_probe(SIZE))
    results = []
    for memory in (None, 1):
        stitcher = Stitcher(positions, weight, placement, synchronise=synchronise, memory=memory, tile=24)
        for start in range(0, len(sequence), step):
            some = sequence[start : start + step]
            stitcher.add(patches[some] * turns[some, None, None], positions[some])
        results.append(stitcher.result())
    whole, tiles = results[0], assembled(results[1])
    np.testing.assert_array_equal(tiles.object, whole.object)
    np.testing.assert_array_equal(tiles.weight, whole.weight)
    rows, columns = (np.arange(n) + first for n, first in zip(whole.shape, whole.origin, strict=True))
    expected = known(rows[:, None], columns[None], moved)
    lit = whole.covered
    if synchronise:
        expected = expected * np.exp(1j * np.angle(np.vdot(expected[lit], whole.object[lit])))
    assert lit.sum() > 40**2
    allowed = tolerance(placement, moved, synchronise)
    assert np.abs(whole.object - expected)[lit].max() < allowed
    # Half a pixel off would be wrong by more.
    assert allowed < 0.2 * np.abs(np.diff(known(rows[:, None], columns[None], moved), axis=0)).max()


def test_a_probe_that_fades_to_nothing_gives_exact_values_where_it_hardly_shines():
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    probe = np.exp(-(row**2 + column**2) / 8.0).astype(np.complex64)[None]
    assert 0 < illumination(probe).min() < 2.0**-149
    positions = np.array([[0.0, 0.0], [0.5, 0.25]])
    stitcher = Stitcher(positions, patch_weight("probe", SIZE, probe))
    stitcher.add(np.full((2, SIZE, SIZE), 0.6 - 0.3j), positions)
    stitched = stitcher.result()
    np.testing.assert_allclose(stitched.object[stitched.covered], 0.6 - 0.3j, rtol=4 * UNIT)
    assert stitched.covered.sum() == SIZE**2
