"""The ring correlation falls where the images part, and says so in cycles per pixel."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.frc import cutoff, describe_cutoff, fourier_ring_correlation
from runtime.errors import InputError


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
    assert result.text == "0.5: never crossed; 1/7: never crossed"
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


def test_cutoff_in_words_and_metres() -> None:
    assert describe_cutoff(0.1234) == "0.123 cycles per pixel"
    assert describe_cutoff(None) == "never crossed"
    one, two = sharing(0.2)
    result = fourier_ring_correlation(one, two, pixel_size=1e-8)
    assert result.cutoff_half is not None
    assert result.period_half_m == pytest.approx(1e-8 / result.cutoff_half)
    assert fourier_ring_correlation(one, two).period_half_m is None
    assert fourier_ring_correlation(one, one, pixel_size=1e-8).period_half_m is None


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="FRC"):
        fourier_ring_correlation(np.ones((8, 8)), np.ones((8, 9)))
