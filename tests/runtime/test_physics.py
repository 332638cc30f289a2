from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.forward_model import cut_windows, forward, illumination, window_corners


def test_photons_are_conserved(scan, probe):
    exit_waves = scan.labels.astype(np.complex128) * probe[0]
    photons = np.sum(np.abs(exit_waves) ** 2, axis=(1, 2))
    pattern = np.sum(forward(scan.labels.astype(np.complex128), probe) ** 2, axis=(1, 2))
    np.testing.assert_allclose(pattern, photons, rtol=1e-10)


@pytest.mark.parametrize("size", [15, 16])
def test_a_flat_exit_wave_goes_to_the_centre(size):
    amplitude = forward(np.ones((1, size, size)), np.full((1, size, size), 2.0 + 0j))[0]
    expected = np.zeros((size, size))
    expected[size // 2, size // 2] = 2 * size
    np.testing.assert_allclose(amplitude, expected, atol=1e-9)


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize(("down", "right"), [(2, 0), (0, -3), (1, 4)])
def test_a_phase_ramp_moves_the_pattern(size, down, right):
    rng = np.random.default_rng(0)
    patch = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
    row, column = np.mgrid[:size, :size]
    ramp = np.exp(2j * np.pi * (down * row + right * column) / size)
    flat = np.ones((1, size, size), complex)
    moved = forward(patch * ramp, flat)
    np.testing.assert_allclose(moved, np.roll(forward(patch, flat), (down, right), (0, 1)), atol=1e-10)


def test_modes_add_their_intensities(scan, probe):
    other = probe[:, ::-1] * 0.5j
    both = forward(scan.labels, np.concatenate([probe, other])) ** 2
    apart = forward(scan.labels, probe) ** 2 + forward(scan.labels, other) ** 2
    np.testing.assert_allclose(both, apart, rtol=1e-4, atol=1e-3)
    density = illumination(np.concatenate([probe, other]))
    np.testing.assert_allclose(density, np.abs(probe[0]) ** 2 + np.abs(other[0]) ** 2, rtol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
def test_the_centre_of_a_window_is_the_position(size):
    image = np.arange(30 * 40).reshape(30, 40)
    centres = np.array([[10.0, 20.0], [4.0, 35.0]])
    windows = cut_windows(image, centres, size)
    assert windows.shape == (2, size, size)
    assert windows[:, size // 2, size // 2].tolist() == [10 * 40 + 20, 4 * 40 + 35]
    assert windows[0, 0, 0] == image[10 - size // 2, 20 - size // 2]
    assert window_corners(centres, size)[1].tolist() == [4 - size // 2, 35 - size // 2]


def test_the_origin_moves_the_image_on_the_canvas():
    image = np.arange(20 * 20).reshape(20, 20)
    at_origin = cut_windows(image, np.array([[8.0, 9.0]]), 6)
    moved = cut_windows(image, np.array([[108.0, -41.0]]), 6, origin=(100.0, -50.0))
    np.testing.assert_array_equal(at_origin, moved)


def test_positions_are_rounded_to_the_nearest_pixel():
    image = np.arange(20 * 20).reshape(20, 20)
    np.testing.assert_array_equal(
        cut_windows(image, np.array([[8.4, 8.6]]), 6), cut_windows(image, np.array([[8.0, 9.0]]), 6)
    )


@pytest.mark.parametrize("centre", [(2, 10), (10, 2), (18, 10), (10, 18)])
def test_a_window_that_leaves_the_object_is_refused(centre):
    with pytest.raises(InputError, match=r"position 1 at .* outside the object of 20 x 20"):
        cut_windows(np.zeros((20, 20)), np.array([[10.0, 10.0], centre], dtype=float), 6)


def test_windows_that_touch_the_border_are_inside():
    assert cut_windows(np.zeros((20, 20)), np.array([[3.0, 3.0], [17.0, 17.0]]), 6).shape == (2, 6, 6)
