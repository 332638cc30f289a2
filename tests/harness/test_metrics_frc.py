"""The ring correlation falls where images begin to differ, and states it in cycles per pixel."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.harness.metrics.frc import cutoff, fourier_ring_correlation
from ptychonnx.runtime.errors import InputError


def sharing(
    limit: float, shape: tuple[int, int] = (160, 160), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two white images whose Fourier coefficients are equal below `limit` cycles per pixel, and not above."""
    rng = np.random.default_rng(seed)
    one, two = (np.fft.fft2(rng.normal(size=shape)) for _ in range(2))
    low = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])) < limit
    return np.fft.ifft2(one).real, np.fft.ifft2(np.where(low, one, two)).real


@pytest.mark.parametrize("limit", [0.1, 0.23, 0.37])
@pytest.mark.parametrize("shape", [(160, 160), (128, 201)])
def test_images_that_share_a_band_part_at_its_limit(limit: float, shape: tuple[int, int]) -> None:
    result = fourier_ring_correlation(*sharing(limit, shape))
    assert result.cutoff_half == pytest.approx(limit, abs=1.5 / 128)
    assert result.cutoff_seventh == pytest.approx(limit, abs=2.5 / 128)
    inside = np.array(result.frequency) < limit - 2 / 128
    beyond = np.array(result.frequency) > limit + 2 / 128
    assert np.array(result.correlation)[inside].min() > 0.99
    assert np.abs(np.array(result.correlation)[beyond]).mean() < 0.15


def test_equal_images_are_never_crossed() -> None:
    image, _ = sharing(0.5)
    result = fourier_ring_correlation(3 * image + 7, image)
    np.testing.assert_allclose(result.correlation, 1)
    assert result.cutoff_half is None
    assert result.cutoff_seventh is None
    assert result.cutoff_two_sigma is None
    assert result.half_period_px.half is None
    assert result.text.startswith("0.5: never crossed, half-period of at most 1 pixel; 1/7: never crossed")
    assert result.frequency[-1] == 0.5
    assert len(result.frequency) == 80


def test_the_negative_correlates_negatively() -> None:
    image, _ = sharing(0.5)
    result = fourier_ring_correlation(-image, image)
    np.testing.assert_allclose(result.correlation, -1)
    assert result.cutoff_half == 0.0
    assert "lowest rings" in result.text


def test_equal_borders_do_not_count_as_agreement() -> None:
    # Both images have the same steep slope, whose jump at the border fills a cross in Fourier space.
    rng = np.random.default_rng(2)
    slope = 0.5 * np.arange(128)
    one, two = (slope + rng.normal(size=(128, 128)) for _ in range(2))
    result = fourier_ring_correlation(one, two)
    assert np.abs(np.array(result.correlation)[10:]).mean() < 0.15


def test_cutoff_is_interpolated_at_the_first_crossing() -> None:
    frequency = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    correlation = np.array([1.0, 0.8, 0.2, 0.9, 0.1])
    assert cutoff(frequency, correlation, 0.5) == pytest.approx(0.25)
    assert cutoff(frequency, correlation, 0.05) is None
    assert cutoff(frequency, np.array([0.3, 0.4, 0.4, 0.9, 0.9]), 0.5) == 0.0


def test_a_dip_of_the_first_rings_is_no_cutoff() -> None:
    frequency = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert cutoff(frequency, np.array([0.3, 0.9, 0.8, 0.2, 0.9]), 0.5) == pytest.approx(0.35)
    assert cutoff(frequency, np.array([0.1, 0.4, 0.8, 0.9, 0.9]), 0.5) is None


def test_a_curve_as_threshold_is_crossed_where_the_two_curves_meet() -> None:
    frequency = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    # From 0.9 over 0.4 to 0.3 below 0.4: margins of 0.5 and -0.1.
    found = cutoff(frequency, np.array([0.9, 0.9, 0.9, 0.3, 0.9]), np.array([0.8, 0.5, 0.4, 0.4, 0.3]))
    assert found == pytest.approx(0.3 + 0.1 * 0.5 / 0.6)


def test_rings_too_small_to_be_significant_do_not_end_the_two_sigma_search() -> None:
    frequency = np.linspace(0.1, 0.5, 5)
    threshold = np.array([1.3, 0.9, 0.8, 0.7, 0.3])
    assert cutoff(frequency, np.array([0.7, 0.7, 0.7, 0.7, 0.7]), threshold) is None
    assert cutoff(frequency, np.array([0.7, 0.7, 0.7, 0.6, 0.2]), threshold) == 0


@pytest.mark.parametrize("shape", [(48, 48), (41, 64)])
def test_two_sigma_is_twice_the_standard_deviation_of_unrelated_images(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    found = [
        fourier_ring_correlation(rng.normal(size=shape), rng.normal(loc=3, size=shape)) for _ in range(400)
    ]
    correlation = np.array([each.correlation for each in found])
    two_sigma = np.array(found[0].two_sigma)
    np.testing.assert_allclose(2 * np.std(correlation, axis=0)[3:], two_sigma[3:], rtol=0.15)
    # Of a normal distribution one value in 44 lies above that.
    assert 1 / 70 < np.mean(correlation > two_sigma) < 1 / 35


def test_resolution_is_the_half_period_in_pixels_and_metres() -> None:
    one, two = sharing(0.2)
    result = fourier_ring_correlation(one, two, pixel_size=1e-8)
    assert result.cutoff_half is not None
    assert result.half_period_px.half == pytest.approx(0.5 / result.cutoff_half)
    assert result.half_period_m is not None
    assert result.half_period_m.half == pytest.approx(1e-8 * result.half_period_px.half)
    assert result.half_period_m.seventh == pytest.approx(0.5e-8 / result.cutoff_seventh)
    assert result.half_period_m.two_sigma == pytest.approx(0.5e-8 / result.cutoff_two_sigma)
    # A period of 5 pixels: lines of 2.5 pixels, 25 nm.
    assert (
        f"half-period {result.half_period_px.half:.3g} pixels ({10 * result.half_period_px.half:.3g} nm)"
        in result.text
    )
    assert fourier_ring_correlation(one, two).half_period_m is None
    never = fourier_ring_correlation(one, one, pixel_size=1e-8)
    assert never.half_period_m is not None
    assert never.half_period_m.half is None
    assert "at most 1 pixel (10 nm)" in never.text


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="FRC"):
        fourier_ring_correlation(np.ones((8, 8)), np.ones((8, 9)))
    with pytest.raises(InputError, match="at least 4 x 4"):
        fourier_ring_correlation(np.ones((3, 8)), np.ones((3, 8)))
