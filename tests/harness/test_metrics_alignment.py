"""Alignment undoes exactly what it records, and the region is what was illuminated."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.harness.metrics.alignment import align, apply_alignment, shift_image
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.harness.metrics.region import (
    Rectangle,
    RegionRule,
    accumulated_illumination,
    declare_region,
    largest_rectangle,
)
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Reference, Scan


def smooth_object(rows: int = 90, columns: int = 70, seed: int = 0) -> np.ndarray:
    """A band-limited complex object, so that sub-pixel shifts are defined."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.normal(size=(rows, columns)) + 1j * rng.normal(size=(rows, columns)))
    spectrum[np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)) > 0.12] = 0
    field = np.fft.ifft2(spectrum)
    return (1 - 0.3 * field.real / np.abs(field).max()) * np.exp(0.8j * field.imag / np.abs(field).max())


@pytest.fixture
def region() -> np.ndarray:
    """An ellipse, touching no border."""
    rows, columns = np.mgrid[:90, :70]
    return ((rows - 45) / 38) ** 2 + ((columns - 35) / 28) ** 2 < 1


def test_global_scale_and_phase_are_found_from_the_region_alone(region: np.ndarray) -> None:
    reference = smooth_object()
    reconstruction = np.where(region, reference / (2.5 * np.exp(0.7j)), 1e6)
    aligned = align(reconstruction, reference, region)
    np.testing.assert_allclose(aligned.object[region], reference[region], atol=1e-12)
    assert aligned.record.scale == pytest.approx(2.5)
    assert aligned.record.phase_rad == pytest.approx(0.7)
    assert aligned.record.ramp_rad_per_pixel is None
    assert aligned.record.shift_px is None


def test_the_factor_is_the_least_squares_one() -> None:
    # |2c - 1|^2 + |c - 2|^2 is least at c = (2 + 2) / 5.
    aligned = align(np.array([[2.0, 1.0]]), np.array([[1.0, 2.0]]), np.ones((1, 2), dtype=bool))
    assert aligned.record.scale == pytest.approx(0.8)


def test_a_zero_reconstruction_stays_zero(region: np.ndarray) -> None:
    aligned = align(np.zeros((90, 70), dtype=complex), smooth_object(), region)
    assert not aligned.object.any()
    assert aligned.record.scale == 1


@pytest.mark.parametrize("ramp", [(0.01, -0.02), (0.9, 0.4), (-2.7, 3.0)])
def test_a_ramp_is_found_however_often_it_wraps(region: np.ndarray, ramp: tuple[float, float]) -> None:
    reference = smooth_object()
    rows, columns = np.mgrid[:90, :70]
    noise = 0.1 * np.random.default_rng(1).normal(size=(2, 90, 70))
    tilted = (reference + noise[0] + 1j * noise[1]) * np.exp(1j * (ramp[0] * rows + ramp[1] * columns + 2))
    aligned = align(tilted, reference, region, plane=True)
    # Noise of 0.1 on 3,300 pixels leaves about 1e-4 rad per pixel.
    assert aligned.record.ramp_rad_per_pixel == pytest.approx(ramp, abs=5e-4)
    assert np.abs(aligned.object - reference)[region].mean() < 0.2


def test_a_ramp_is_kept_unless_its_removal_is_asked_for(region: np.ndarray) -> None:
    reference = smooth_object()
    tilted = reference * np.exp(0.2j * np.arange(90))[:, None]
    assert np.abs(align(tilted, reference, region).object - reference)[region].mean() > 0.5
    np.testing.assert_allclose(
        align(tilted, reference, region, plane=True).object[region], reference[region], atol=1e-6
    )


@pytest.mark.parametrize("plane", [False, True])
def test_a_subpixel_shift_is_found_and_the_border_given_up(region: np.ndarray, plane: bool) -> None:
    reference = smooth_object()
    moved = shift_image(reference, (-2.3, 1.6)) * 0.5
    if plane:
        moved = moved * np.exp(0.3j * np.arange(70))
    aligned = align(moved, reference, region, plane=plane, register=True)
    assert aligned.record.shift_px == pytest.approx((2.3, -1.6), abs=0.05)
    assert not (aligned.region & ~region).any()
    assert 0.6 * region.sum() < aligned.region.sum() < region.sum()
    assert np.abs(aligned.object - reference)[aligned.region].max() < 0.02


def test_registration_finds_the_shift_that_scipy_made(region: np.ndarray) -> None:
    from scipy.ndimage import fourier_shift

    reference = smooth_object()  # periodic, so that a Fourier shift is exact
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(reference), (-1.37, 2.62)))
    record = align(moved, reference, region, register=True).record
    assert record.shift_px == pytest.approx((1.37, -2.62), abs=0.03)
    assert "phase_cross_correlation" in record.method


def test_a_shift_that_is_no_misplacement_is_said_and_not_undone(region: np.ndarray) -> None:
    reference = smooth_object()
    aligned = align(np.roll(reference, 17, axis=0), reference, region, register=True)
    assert aligned.record.shift_px == (0, 0)
    assert "not corrected" in aligned.record.notes[0]
    np.testing.assert_array_equal(aligned.region, region)


def test_the_ramp_is_the_plane_of_the_unwrapped_phase(region: np.ndarray) -> None:
    from skimage.restoration import unwrap_phase

    reference = smooth_object()
    rows, columns = np.mgrid[:90, :70]
    noise = 0.02 * np.random.default_rng(1).normal(size=(2, 90, 70))
    tilted = (reference + noise[0] + 1j * noise[1]) * np.exp(1j * (0.31 * rows - 0.17 * columns + 2))
    turned = np.angle(tilted * np.conj(reference))
    phase = unwrap_phase(np.ma.masked_array(turned, mask=~region)).data[region]
    basis = np.stack([rows[region], columns[region], np.ones(region.sum())], axis=1)
    plane = np.linalg.lstsq(basis, phase, rcond=None)[0]
    record = align(tilted, reference, region, plane=True).record
    assert record.ramp_rad_per_pixel == pytest.approx(tuple(plane[:2]), abs=2e-5)


def test_a_record_applied_again_gives_the_same_object(region: np.ndarray) -> None:
    reference = smooth_object()
    other = shift_image(reference, (1.2, 0.4)) * np.exp(0.1j * np.arange(70)) * 3j
    aligned = align(other, reference, region, plane=True, register=True)
    np.testing.assert_allclose(apply_alignment(other, aligned.record), aligned.object, atol=1e-12)


def test_shift_image_moves_down_and_right() -> None:
    image = np.zeros((9, 9), dtype=complex)
    image[3, 4] = 1j
    assert np.unravel_index(np.abs(shift_image(image, (2, 1))).argmax(), (9, 9)) == (5, 5)


def test_largest_rectangle_against_exhaustive_search() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        mask = rng.random((7, 9)) < 0.75
        best = max(
            (b - t) * (r - left)
            for t in range(7)
            for b in range(t + 1, 8)
            for left in range(9)
            for r in range(left + 1, 10)
            if mask[t:b, left:r].all()
        )
        found = largest_rectangle(mask)
        assert mask[found.slices].all()
        assert found.shape[0] * found.shape[1] == best


def test_largest_rectangle_of_an_l_shape() -> None:
    mask = np.zeros((6, 8), dtype=bool)
    mask[0:2, :] = True
    mask[:, 0:3] = True
    assert largest_rectangle(mask) == Rectangle(0, 6, 0, 3)


def two_windows(probe: np.ndarray | None) -> Scan:
    positions = np.array([[4.0, 4.0], [4.0, 10.0]])
    return Scan(np.ones((2, 8, 8), dtype=np.float32), positions, probe=probe)


def test_illumination_is_accumulated_where_the_windows_lie() -> None:
    probe = np.zeros((2, 8, 8), dtype=np.complex64)
    probe[0, 0, 1], probe[1, 0, 1], probe[0, 7, 7] = 2, 1j, 3
    light = accumulated_illumination(two_windows(probe), (8, 14), (0.0, 0.0))
    expected = np.zeros((8, 14))
    expected[0, 1] = expected[0, 7] = 5
    expected[7, 7] = expected[7, 13] = 9
    np.testing.assert_allclose(light, expected)


def test_dim_pixels_are_left_out_of_the_region() -> None:
    probe = np.full((1, 8, 8), 0.1, dtype=np.complex64)  # 1 % of the light of the core
    probe[0, 2:6, 2:6] = 1
    covered = np.ones((8, 14), dtype=bool)
    region, record = declare_region(two_windows(probe), covered, (0.0, 0.0), RegionRule(0.1))
    expected = np.zeros((8, 14), dtype=bool)
    expected[2:6, 2:6] = expected[2:6, 8:12] = True
    np.testing.assert_array_equal(region, expected)
    assert record.pixels == 32
    assert record.rectangle_px == (2, 6, 2, 6)
    assert declare_region(two_windows(probe), covered, (0.0, 0.0), RegionRule(0.005))[0].all()
    # A core of 1 on half of the light or more is typical, whatever its size: 1 % of it is the limit of the border.
    assert declare_region(two_windows(probe), covered, (0.0, 0.0), RegionRule(0.0099))[0].all()
    assert not declare_region(two_windows(probe), covered, (0.0, 0.0), RegionRule(0.0101))[0][0, 0]


def test_a_box_in_scan_coordinates_and_the_coverage_bound_the_region() -> None:
    covered = np.ones((8, 14), dtype=bool)
    covered[3] = False
    rule = RegionRule(0.0, box=(101, 106, 52, 60))
    positions = np.array([[104.0, 54.0], [104.0, 60.0]])
    scan = Scan(np.ones((2, 8, 8), dtype=np.float32), positions, probe=np.ones((1, 8, 8), dtype=np.complex64))
    region, record = declare_region(scan, covered, (100.0, 50.0), rule)
    expected = np.zeros((8, 14), dtype=bool)
    expected[1:6, 2:10] = True
    expected[3] = False
    np.testing.assert_array_equal(region, expected)
    assert "rows 101 to 106" in record.rule


def test_an_empty_region_and_bad_rules_are_refused() -> None:
    with pytest.raises(InputError, match="holds no pixel"):
        declare_region(two_windows(None), np.zeros((8, 14), dtype=bool), (0.0, 0.0))
    with pytest.raises(InputError, match="fraction is 1"):
        RegionRule(1.0)
    with pytest.raises(InputError, match="growing order"):
        RegionRule(box=(5, 1, 0, 3))


def test_without_a_probe_the_rule_says_so() -> None:
    _, record = declare_region(two_windows(None), np.ones((8, 14), dtype=bool), (0.0, 0.0))
    assert "probe is unknown" in record.rule


@pytest.mark.parametrize("origin", [(3.0, -2.0), (-4.0, 5.0)])
def test_reference_is_cut_to_the_canvas_at_whole_pixels(origin: tuple[float, float]) -> None:
    image = smooth_object(12, 10).astype(np.complex64)
    canvas, known, placement = reference_on_canvas(Reference(image, origin), (9, 11), (1.0, 1.0))
    for row in range(9):
        for column in range(11):
            r, c = int(row + 1 - origin[0]), int(column + 1 - origin[1])
            inside = 0 <= r < 12 and 0 <= c < 10
            assert known[row, column] == inside
            assert canvas[row, column] == (image[r, c] if inside else 0)
    assert placement.offset_px == (origin[0] - 1, origin[1] - 1)
    assert placement.interpolated_px == (0, 0)


def test_a_fraction_of_a_pixel_is_interpolated() -> None:
    rows, columns = np.mgrid[:20, :20].astype(float)
    plane = Reference((1 + 0.1 * rows + 0.02j * columns).astype(np.complex64), (0.25, -0.4))
    canvas, known, placement = reference_on_canvas(plane, (20, 20), (0.0, 0.0))
    np.testing.assert_allclose(placement.interpolated_px, (0.25, -0.4))
    expected = 1 + 0.1 * (rows - 0.25) + 0.02j * (columns + 0.4)
    inner = (slice(4, 16), slice(4, 16))
    assert known[inner].all()
    np.testing.assert_allclose(canvas[inner], expected[inner], atol=1e-4)


def test_a_reference_elsewhere_covers_nothing() -> None:
    _, known, _ = reference_on_canvas(
        Reference(np.ones((4, 4), np.complex64), (90.0, 0.0)), (9, 9), (0.0, 0.0)
    )
    assert not known.any()
