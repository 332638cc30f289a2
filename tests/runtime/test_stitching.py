from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.reconstruction.stitching import Stitcher, patch_weight
from ptychonnx.runtime.scan.forward_model import cut_windows

SIZE = 16
WEIGHTINGS = ["probe", "window", "uniform", "crop"]


def smooth(row, column):
    """An analytic object that varies over a few pixels; its second derivatives are known."""
    return (1 + 0.2 * np.sin(0.3 * row)) * np.exp(1j * 0.25 * column)


# |f_rr| <= 0.2 * 0.3^2 and |f_cc| <= 1.2 * 0.25^2
SMOOTH_BOUND = (0.2 * 0.3**2 + 1.2 * 0.25**2) / 8


def smooth_patches(positions):
    row, column = np.mgrid[:SIZE, :SIZE]
    corners = positions - SIZE // 2
    return smooth(row + corners[:, 0, None, None], column + corners[:, 1, None, None])


def on_canvas(stitched):
    row, column = np.indices(stitched.object.shape)
    return smooth(row + stitched.origin[0], column + stitched.origin[1])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_oracle_patches_give_the_object_back(truth, probe, positions, weighting):
    stitcher = Stitcher(positions, patch_weight(weighting, SIZE, probe))
    stitcher.add(cut_windows(truth, positions, SIZE), positions)
    stitched = stitcher.result()
    rows, columns = np.nonzero(stitched.covered)
    origin = np.array(stitched.origin, dtype=int)
    expected = truth[rows + origin[0], columns + origin[1]]
    assert rows.size > 300
    assert np.abs(stitched.object[rows, columns] - expected).max() < 1e-6


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("fraction", [(0.5, 0.5), (0.25, 0.0), (0.0, 0.7), (0.9, 0.1)])
def test_sub_pixel_positions_stay_within_the_bound(probe, weighting, fraction):
    positions = np.array([[0.0, 0.0], [4.0, 5.0], [9.0, -3.0]]) + fraction
    stitcher = Stitcher(positions, patch_weight(weighting, SIZE, probe))
    stitcher.add(smooth_patches(positions), positions)
    stitched = stitcher.result()
    error = np.abs(stitched.object - on_canvas(stitched))[stitched.covered]
    assert error.max() < SMOOTH_BOUND + 1e-6
    # A patch laid half a pixel off would be wrong by the slope, ten times as much.
    assert SMOOTH_BOUND < 0.1 * 1.2 * 0.25


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_mixed_fractions_stay_within_the_bound(probe, weighting):
    rng = np.random.default_rng(1)
    positions = rng.uniform(-20, 30, (40, 2))
    stitcher = Stitcher(positions, patch_weight(weighting, SIZE, probe))
    stitcher.add(smooth_patches(positions), positions)
    stitched = stitcher.result()
    error = np.abs(stitched.object - on_canvas(stitched))[stitched.covered]
    assert error.max() < SMOOTH_BOUND + 1e-6


def test_fourier_placement_keeps_what_bilinear_placement_blurs(probe):
    positions = np.array([[8.5, 8.5], [12.25, 9.75], [9.0, 13.4]])
    errors = {}
    for placement in ("bilinear", "fourier"):
        stitcher = Stitcher(positions, patch_weight("probe", SIZE, probe), placement)
        stitcher.add(smooth_patches(positions), positions)
        stitched = stitcher.result()
        # Where light fell; borders of a patch have hardly any.
        lit = stitched.weight > 0.3 * stitched.weight.max()
        errors[placement] = np.abs(stitched.object - on_canvas(stitched))[lit].max()
    assert errors["fourier"] < 0.3 * errors["bilinear"]


@pytest.mark.parametrize("placement", ["bilinear", "fourier"])
@pytest.mark.parametrize("fraction", [(0.3, 0.0), (0.0, 0.8), (0.45, 0.6)])
def test_a_weight_with_a_border_of_zeros_moves_without_loss(fraction, placement):
    # The canvas begins at the first window, which has another fraction.
    positions = np.array([[0.0, 0.0], np.add(fraction, 40)])
    weight = patch_weight("crop", SIZE)
    stitcher = Stitcher(positions, weight, placement)
    stitcher.add(np.ones((1, SIZE, SIZE)), positions[1:])
    found = stitcher.result().weight
    assert found.sum() == pytest.approx(weight.sum())
    row, column = np.indices(found.shape)
    middle = np.array([(row * found).sum(), (column * found).sum()]) / found.sum()
    np.testing.assert_allclose(middle, np.add(fraction, 40) + (SIZE - 1) / 2)


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_order_and_batches_do_not_matter(probe, batch):
    rng = np.random.default_rng(2)
    positions = rng.uniform(0, 50, (40, 2))
    patches = rng.normal(size=(40, SIZE, SIZE)) + 1j * rng.normal(size=(40, SIZE, SIZE))
    weight = patch_weight("probe", SIZE, probe)
    at_once = Stitcher(positions, weight)
    at_once.add(patches, positions)
    shuffled = Stitcher(positions, weight)
    order = rng.permutation(40)
    for start in range(0, 40, batch):
        some = order[start : start + batch]
        shuffled.add(patches[some], positions[some])
    expected, result = at_once.result(), shuffled.result()
    np.testing.assert_allclose(result.object, expected.object, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.weight, expected.weight, rtol=0, atol=1e-9)
    assert result.origin == expected.origin


def test_what_no_patch_reaches_is_zero_and_not_covered():
    positions = np.array([[0.0, 0.0], [40.0, 40.0]])
    stitcher = Stitcher(positions, np.ones((SIZE, SIZE)))
    stitcher.add(np.full((2, SIZE, SIZE), 1 + 1j), positions)
    stitched = stitcher.result()
    assert stitched.covered.sum() == 2 * SIZE * SIZE
    assert (stitched.object[~stitched.covered] == 0).all()
    np.testing.assert_array_equal(stitched.object[stitched.covered], np.complex64(1 + 1j))
    assert not stitched.covered[:SIZE, 40:].any()


def test_faint_weights_still_divide_exactly():
    positions = np.zeros((1, 2))
    stitcher = Stitcher(positions, np.full((SIZE, SIZE), 1e-30))
    stitcher.add(np.full((1, SIZE, SIZE), 0.7 - 0.2j), positions)
    stitched = stitcher.result()
    np.testing.assert_allclose(stitched.object[stitched.covered], 0.7 - 0.2j, rtol=1e-6)


def test_a_wrapped_phase_averages_to_pi():
    positions = np.zeros((2, 2))
    patches = np.ones((2, SIZE, SIZE)) * np.exp(1j * np.array([np.pi - 0.1, -np.pi + 0.1]))[:, None, None]
    stitcher = Stitcher(positions, np.ones((SIZE, SIZE)))
    stitcher.add(patches, positions)
    stitched = stitcher.result()
    phase = np.angle(stitched.object[stitched.covered])
    np.testing.assert_allclose(np.abs(phase), np.pi, atol=1e-6)


def test_overlapping_patches_are_weighted_by_the_illumination(probe):
    positions = np.array([[0.0, 0.0], [0.0, 4.0]])
    weight = patch_weight("probe", SIZE, probe)
    stitcher = Stitcher(positions, weight)
    stitcher.add(np.stack([np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE))]).astype(complex), positions)
    stitched = stitcher.result()
    first, second = weight[5, 10], weight[5, 6]
    assert stitched.object[5, 10].real == pytest.approx(second / (first + second), rel=1e-6)


def test_the_origin_is_the_corner_of_the_first_window():
    positions = np.array([[108.0, -20.0], [110.0, -31.0]])
    stitcher = Stitcher(positions, np.ones((SIZE, SIZE)))
    stitcher.add(np.ones((2, SIZE, SIZE), complex), positions)
    stitched = stitcher.result()
    assert stitched.origin == (100.0, -39.0)
    assert stitched.covered[2, 0]
    assert not stitched.covered[0, 0]


def test_weights_are_what_they_say(probe):
    density = np.sum(np.abs(probe) ** 2, axis=0)
    np.testing.assert_allclose(patch_weight("probe", SIZE, probe), density / density.max(), rtol=1e-5)
    assert (patch_weight("uniform", SIZE) == 1).all()
    assert patch_weight("crop", SIZE).sum() == 64
    window = patch_weight("window", SIZE)
    assert window.min() > 0
    np.testing.assert_allclose(window, window[::-1, ::-1])


def test_impossible_requests_are_refused():
    with pytest.raises(InputError, match="needs a probe"):
        patch_weight("probe", SIZE)
    with pytest.raises(InputError, match="'median' is unknown, expected one of probe"):
        patch_weight("median", SIZE)
    with pytest.raises(InputError, match="'cubic' is unknown, expected one of bilinear, fourier"):
        Stitcher(np.zeros((1, 2)), np.ones((SIZE, SIZE)), "cubic")
    with pytest.raises(InputError, match="are the positions in pixels"):
        Stitcher(np.array([[0.0, 0.0], [1e6, 1e6]]), np.ones((SIZE, SIZE)))
