"""Every metric equals a value from an independent calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from ptychonnx.harness.metrics.comparison import compare
from ptychonnx.harness.metrics.image_similarity import (
    contrast_ratio,
    mae,
    ms_ssim,
    mse,
    pearson,
    psnr,
    ssim,
    wrap,
)
from ptychonnx.harness.metrics.ptychopinn_profile import compare_as_ptychopinn
from ptychonnx.runtime.errors import InputError


def lines(side: int = 96, phase: float = 1.0) -> np.ndarray:
    """complex [side, side]: amplitude 0.4..1, phase 0..`phase`, with fine structure."""
    rows, columns = np.mgrid[:side, :side]
    wave = 0.5 + 0.25 * (np.sin(0.31 * rows + 0.2 * columns) + np.sin(0.05 * rows**1.2 - 0.4 * columns))
    return (1 - 0.6 * wave) * np.exp(1j * phase * wave)


def test_small_cases_by_hand() -> None:
    difference = np.array([1.0, -3.0, 0.0, 2.0])
    assert mae(difference) == 1.5
    assert mse(difference) == 3.5
    assert psnr(0.01, 1.0) == pytest.approx(20.0)
    assert psnr(0.01, 10.0) == pytest.approx(40.0)
    assert psnr(0.0, 1.0) == math.inf
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 5.0])
    assert pearson(a, b) == pytest.approx(3 / math.sqrt(2 * 6))  # sums of products of (-1,0,1) and (-1,-1,2)
    assert pearson(a, -4 * a + 1) == pytest.approx(-1)
    assert contrast_ratio(3 * a, a) == pytest.approx(3)
    assert contrast_ratio(np.ones(3), a) == 0


def test_wrap_keeps_pi_and_drops_minus_pi() -> None:
    angles = np.array([np.pi, -np.pi, 3.5 * np.pi, -0.1, 2 * np.pi])
    np.testing.assert_allclose(wrap(angles), [np.pi, np.pi, -0.5 * np.pi, -0.1, 0], atol=1e-12)


def test_ms_ssim_with_one_scale_is_ssim() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((40, 33)), rng.random((40, 33))
    b += a
    value, scales = ms_ssim(a, b, 2.0, weights=(1.0,))
    assert scales == 1
    assert value == pytest.approx(ssim(a, b, 2.0), rel=1e-9)
    assert 0.2 < value < 0.9


def test_ms_ssim_of_two_scales_by_its_definition() -> None:
    # Images of zero local mean difference leave luminance at 1 in the limit of a large offset: c s = SSIM
    # there.
    rng = np.random.default_rng(1)
    a = rng.normal(size=(64, 64))
    b = a + 0.5 * rng.normal(size=(64, 64))
    offset, data_range = 1e4, 6.0
    fine = structural_similarity(
        a + offset, b + offset, data_range=data_range, gaussian_weights=True, use_sample_covariance=False
    )
    halved = [image.reshape(32, 2, 32, 2).mean(axis=(1, 3)) + offset for image in (a, b)]
    coarse = structural_similarity(
        *halved, data_range=data_range, gaussian_weights=True, use_sample_covariance=False
    )
    value, scales = ms_ssim(a + offset, b + offset, data_range, weights=(1.0, 3.0))
    assert scales == 2
    assert value == pytest.approx(fine**0.25 * coarse**0.75, rel=1e-4)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (21, 1), (22, 2), (175, 4), (176, 5), (400, 5)])
def test_ms_ssim_uses_as_many_scales_as_fit(side: int, scales: int) -> None:
    image = np.random.default_rng(2).random((side, side + 3))
    assert ms_ssim(image, image, 1.0) == (pytest.approx(1.0), scales)


def test_equal_images_are_equal() -> None:
    result = compare(lines(), lines())
    for metrics in (result.amplitude, result.phase):
        assert metrics.mae == pytest.approx(0, abs=1e-12)
        assert metrics.ssim == pytest.approx(1)
        assert metrics.ms_ssim == pytest.approx(1)
        assert metrics.pearson == pytest.approx(1)
        assert metrics.contrast_ratio == pytest.approx(1)
        assert metrics.collapsed is False
        assert metrics.frc is not None
        assert metrics.frc.cutoff_half is None
    assert not result.collapsed


@pytest.mark.parametrize("factor", [3.0, 0.01j, 2 * np.exp(-2.8j)])
def test_a_global_factor_changes_no_metric(factor: complex) -> None:
    rng = np.random.default_rng(3)
    other = lines() + 0.05 * (rng.normal(size=(96, 96)) + 1j * rng.normal(size=(96, 96)))
    one, two = (compare(image, lines()) for image in (other, factor * other))
    for name in ("amplitude", "phase"):
        a, b = getattr(one, name), getattr(two, name)
        for metric in ("mae", "mse", "psnr", "ssim", "ms_ssim", "pearson", "contrast_ratio"):
            assert getattr(a, metric) == pytest.approx(getattr(b, metric), rel=1e-9)
        assert 0 < a.mae < 0.1


def test_known_noise_gives_the_psnr_of_the_formula() -> None:
    rng = np.random.default_rng(4)
    reference = lines(200, phase=0.0)
    noise = 0.02 * rng.normal(size=(200, 200))
    result = compare(reference + noise, reference)
    data_range = np.ptp(np.abs(reference))
    assert result.amplitude.data_range == pytest.approx(data_range)
    assert result.amplitude.psnr == pytest.approx(20 * math.log10(data_range / 0.02), abs=0.1)


def test_a_blank_image_is_collapsed_though_its_error_is_small() -> None:
    reference = lines() * 0.1 + 0.9
    result = compare(np.full((96, 96), 0.5 + 0.2j), reference)
    assert result.collapsed
    assert result.amplitude.mae is not None
    assert result.amplitude.mae < 0.05
    for metrics in (result.amplitude, result.phase):
        assert metrics.collapsed is True
        assert metrics.contrast_ratio == pytest.approx(0, abs=1e-9)
        assert metrics.pearson is None
        assert metrics.frc is None
        assert any("constant" in note for note in metrics.notes)
        assert metrics.ssim is not None
        assert metrics.ssim < 0.2


def test_a_collapsed_phase_alone_is_flagged() -> None:
    result = compare(np.abs(lines()), lines())
    assert result.amplitude.collapsed is False
    assert result.phase.collapsed is True
    assert result.collapsed


def test_structure_of_its_own_is_no_reconstruction() -> None:
    result = compare(lines()[::-1, ::-1].T * 1.0, lines())
    assert result.amplitude.pearson is not None
    assert result.amplitude.pearson < 0.2
    assert result.collapsed


def test_a_constant_true_phase_has_no_phase_metrics_but_errors() -> None:
    reference = np.abs(lines()) * np.exp(0.4j)
    rng = np.random.default_rng(5)
    phase_noise = rng.normal(scale=0.05, size=reference.shape)
    result = compare(reference * np.exp(1j * phase_noise), reference)
    phase = result.phase
    assert phase.mae == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.05)
    for name in ("ssim", "ms_ssim", "pearson", "contrast_ratio", "frc", "psnr", "collapsed"):
        assert getattr(phase, name) is None
    assert "constant" in phase.notes[0]
    assert not result.collapsed


def test_phase_errors_are_wrapped() -> None:
    # Phases around pi: the two lie 0.2 apart across the cut. Half of the pixels are up, half down.
    signs = np.where(np.indices((40, 40)).sum(axis=0) % 2, 1.0, -1.0)
    reference = np.exp(1j * (np.pi + 0.02 * signs))
    prediction = np.exp(1j * (np.pi - 0.02 * signs))
    assert compare(prediction, reference).phase.mae == pytest.approx(0.04, rel=1e-6)


def test_a_phase_beyond_two_pi_is_unwrapped_and_said_so() -> None:
    rows, columns = np.mgrid[:64, :64]
    hill = 9.0 * np.exp(-((rows - 32) ** 2 + (columns - 30) ** 2) / 300)
    mask = (rows - 32) ** 2 + (columns - 32) ** 2 < 30**2
    rng = np.random.default_rng(6)
    result = compare(np.exp(1j * (hill + 0.05 * rng.normal(size=(64, 64)))), np.exp(1j * hill), mask)
    assert "unwrapped" in result.phase.notes[0]
    assert result.phase.data_range == pytest.approx(np.ptp(hill[mask]), rel=1e-6)
    assert result.phase.pearson is not None
    assert result.phase.pearson > 0.999
    assert result.phase.mae == pytest.approx(0.04, abs=0.005)


def test_only_the_region_counts() -> None:
    mask = np.zeros((96, 96), dtype=bool)
    mask[20:60, 30:80] = True
    broken = np.where(mask, lines(), 50.0)
    result = compare(broken, lines(), mask)
    assert result.amplitude.mae == pytest.approx(0, abs=1e-9)
    assert result.amplitude.ssim == pytest.approx(1)
    assert result.rectangle_px == (20, 60, 30, 80)
    assert result.pixels == 2000


def test_nan_is_reported_as_such() -> None:
    broken = lines()
    broken[3, 3] = np.nan
    result = compare(broken, lines())
    assert result.collapsed
    assert result.amplitude.mae is None
    assert "NaN" in result.amplitude.notes[0]


def test_a_small_rectangle_leaves_only_pixelwise_metrics() -> None:
    result = compare(lines(10) + 0.01, lines(10))
    assert result.amplitude.ssim is None
    assert result.amplitude.frc is None
    assert result.amplitude.pearson is not None
    assert "too small" in result.amplitude.notes[0]


def test_other_shapes_are_never_made_to_fit() -> None:
    with pytest.raises(InputError, match="differ"):
        compare(lines(32), lines(33))
    with pytest.raises(InputError, match="empty"):
        compare(lines(32), lines(32), np.zeros((32, 32), dtype=bool))


def test_ptychopinn_psnr_is_48_db_above_ours_at_a_range_of_one() -> None:
    reference = lines(96, phase=0.3)
    amplitude = np.abs(reference)
    reference = reference / amplitude * ((amplitude - amplitude.min()) / np.ptp(amplitude) + 1)
    rng = np.random.default_rng(7)
    other = reference * (1 + 0.05 * rng.normal(size=reference.shape))
    theirs, ours = compare_as_ptychopinn(other, reference).amplitude, compare(other, reference).amplitude
    assert ours.psnr is not None
    assert theirs.psnr - ours.psnr == pytest.approx(20 * math.log10(255), abs=0.1)


def test_ptychopinn_frc50_saturates_at_the_number_of_rings() -> None:
    same = compare_as_ptychopinn(lines(64), lines(64))
    assert same.amplitude.frc50 == 46  # rings 0..45 = round(sqrt(2) * 32)
    rng = np.random.default_rng(8)
    assert compare_as_ptychopinn(rng.random((64, 64)) + 0j, lines(64)).amplitude.frc50 == 1


def test_ptychopinn_is_blind_to_amplitude_scale_ramp_and_a_blank_phase() -> None:
    rows, columns = np.mgrid[:64, :64]
    weak = lines(64, phase=0.3)
    tilted = 5 * weak * np.exp(1j * (0.002 * rows - 0.01 * columns + 0.5))
    result = compare_as_ptychopinn(tilted, weak)
    assert result.amplitude.mae == pytest.approx(0, abs=1e-9)
    assert result.phase.mae == pytest.approx(0, abs=1e-9)
    blank = compare_as_ptychopinn(np.abs(weak) + 0j, weak)
    assert blank.phase.ssim is not None
    assert blank.phase.ssim > 0.8
    assert compare(np.abs(weak), weak).phase.collapsed


def test_ptychopinn_margin_is_taken_off() -> None:
    framed = lines(64)
    framed[:5] = framed[-5:] = 9
    framed[:, :5] = framed[:, -5:] = 9
    assert compare_as_ptychopinn(framed, lines(64), margin=5).amplitude.mae == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="margin"):
        compare_as_ptychopinn(framed, lines(64), margin=30)


def test_luminance_counts_at_the_coarsest_scale_only() -> None:
    # Of two flat images only luminance differs: l = (2ab + C1) / (a^2 + b^2 + C1), structure is 1.
    a, b = np.full((64, 64), 0.9), np.full((64, 64), 0.4)
    luminance = (2 * 0.9 * 0.4 + 1e-4) / (0.9**2 + 0.4**2 + 1e-4)
    value, _ = ms_ssim(a, b, 1.0, weights=(1.0, 3.0))
    assert value == pytest.approx(luminance**0.75, rel=1e-6)
