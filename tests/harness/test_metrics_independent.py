"""Each metric against an implementation that shares no code with it: scikit-image, SciPy, or the formula in loops.

What has no counterpart here is held to a case computed by hand: `test_metrics_image` (MAE, MSE, contrast ratio,
collapse), `test_metrics_alignment` (factor, ramp, shift, region), `test_metrics_confidence` (intervals).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage, signal, stats
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from ptychonnx.harness.metrics.comparison import compare
from ptychonnx.harness.metrics.frc import fourier_ring_correlation
from ptychonnx.harness.metrics.image_similarity import ms_ssim
from ptychonnx.harness.metrics.psd import compare_power, power_spectral_density
from ptychonnx.harness.metrics.ptychopinn_profile import compare_as_ptychopinn
from ptychonnx.runtime.errors import InputError

SHAPES = [(24, 24), (24, 35)]


def scene(rows: int = 72, columns: int = 72, seed: int = 0) -> np.ndarray:
    """complex [rows, columns]: amplitude about 1, phase about 0.3 rad, structures of 6 pixels."""
    rng = np.random.default_rng(seed)
    one, two = (ndimage.gaussian_filter(rng.normal(size=(rows, columns)), 2) for _ in range(2))
    return (1 + 0.15 * one / one.std()) * np.exp(0.3j * (1 + two / two.std()))


def pair(rows: int = 72, columns: int = 72) -> tuple[np.ndarray, np.ndarray]:
    """(prediction, reference), the first already aligned: no factor brings it closer."""
    reference = scene(rows, columns)
    rng = np.random.default_rng(9)
    other = reference + 0.1 * (rng.normal(size=reference.shape) + 1j * rng.normal(size=reference.shape))
    return other * (np.vdot(other, reference) / np.vdot(other, other)), reference


def real_pair(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    prediction, reference = pair(*shape)
    return np.abs(prediction), np.abs(reference)


def naive_transform(image: np.ndarray) -> np.ndarray:
    """Windowed Fourier transform by matrices; SciPy's window, every second sample of one twice as fine."""
    rows, columns = image.shape
    window = np.outer(*(signal.windows.hann(2 * side + 1)[1::2] for side in image.shape))
    level = (window * image).sum() / window.sum()
    down = np.exp(-2j * np.pi * np.outer(np.arange(rows), np.arange(rows)) / rows)
    across = np.exp(-2j * np.pi * np.outer(np.arange(columns), np.arange(columns)) / columns)
    return down @ (window * (image - level)) @ across


def naive_rings(shape: tuple[int, int]) -> dict[int, list[tuple[int, int]]]:
    rings: dict[int, list[tuple[int, int]]] = {}
    for row in range(shape[0]):
        for column in range(shape[1]):
            down, across = (
                (index if 2 * index < side else index - side) / side
                for index, side in zip((row, column), shape, strict=True)
            )
            rings.setdefault(math.floor(math.hypot(down, across) * min(shape) + 0.5), []).append(
                (row, column)
            )
    return rings


@pytest.mark.parametrize("shape", SHAPES)
def test_frc_is_its_formula_ring_by_ring(shape: tuple[int, int]) -> None:
    prediction, reference = real_pair(shape)
    first, second = naive_transform(prediction), naive_transform(reference)
    rings = naive_rings(shape)
    expected = []
    for number in range(1, min(shape) // 2 + 1):
        cross = sum((first[at] * second[at].conjugate()).real for at in rings[number])
        powers = [sum(abs(image[at]) ** 2 for at in rings[number]) for image in (first, second)]
        expected.append(cross / math.sqrt(powers[0] * powers[1]))
    found = fourier_ring_correlation(prediction, reference)
    np.testing.assert_allclose(found.correlation, expected, rtol=1e-9)
    np.testing.assert_allclose(found.frequency, np.arange(1, min(shape) // 2 + 1) / min(shape))
    assert min(expected) < 0.5 < max(expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_psd_is_the_mean_periodogram_of_each_ring(shape: tuple[int, int]) -> None:
    image, _ = real_pair(shape)
    window = np.outer(*(signal.windows.hann(2 * side + 1)[1::2] for side in shape))
    power = np.abs(naive_transform(image)) ** 2 / (window**2).sum()
    rings = naive_rings(shape)
    expected = [np.mean([power[at] for at in rings[number]]) for number in range(1, min(shape) // 2 + 1)]
    np.testing.assert_allclose(power_spectral_density(image), expected, rtol=1e-9)


def test_psd_of_white_noise_is_its_variance() -> None:
    noise = np.random.default_rng(1).normal(5, 0.3, size=(200, 300))
    assert power_spectral_density(noise)[2:] == pytest.approx(0.09, rel=0.35)
    assert power_spectral_density(noise)[20:].mean() == pytest.approx(0.09, rel=0.03)


def test_psd_of_a_wave_lies_at_its_frequency() -> None:
    wave = np.sin(2 * np.pi * 0.15 * np.arange(200))[:, None] * np.ones((200, 200))
    assert power_spectral_density(wave).argmax() + 1 == 30


def test_psd_error_of_a_factor_is_that_factor_in_decibels() -> None:
    _, reference = real_pair((64, 64))
    found = compare_power(2 * reference, reference)
    assert found.log_error_db == pytest.approx(20 * math.log10(2))
    assert found.bias_db == pytest.approx(20 * math.log10(2))
    np.testing.assert_allclose(found.density, 4 * np.array(found.reference_density))
    # The same contrast of the opposite sign: nothing for a spectrum to see.
    assert compare_power(-reference, reference).log_error_db == pytest.approx(0, abs=1e-9)


def test_psd_error_tells_blur_from_noise_by_its_sign() -> None:
    _, reference = real_pair((64, 64))
    noise = 0.02 * np.random.default_rng(2).normal(size=(64, 64))
    blurred = compare_power(ndimage.gaussian_filter(reference, 1.5), reference)
    noisy = compare_power(reference + noise, reference)
    assert blurred.bias_db is not None
    assert noisy.bias_db is not None
    assert blurred.bias_db < -2 < 2 < noisy.bias_db
    # By hand, over the rings that are strong enough in the reference.
    ratio = 10 * np.log10(np.divide(noisy.density, noisy.reference_density))
    strong = np.array(noisy.reference_density) >= 1e-6 * max(noisy.reference_density)
    assert noisy.rings == strong.sum() < 32
    assert noisy.log_error_db == pytest.approx(math.sqrt(np.mean(ratio[strong] ** 2)))


def test_psd_of_other_shapes_is_refused() -> None:
    with pytest.raises(InputError, match="PSD"):
        compare_power(np.ones((8, 8)), np.ones((8, 9)))


def test_amplitude_metrics_are_those_of_scikit_image_and_scipy() -> None:
    prediction, reference = pair()
    found = compare(prediction, reference).amplitude
    a, b = np.abs(prediction), np.abs(reference)
    span = b.max() - b.min()
    assert found.data_range == pytest.approx(span)
    assert found.mae == pytest.approx(np.abs(a - b).mean())
    assert found.mse == pytest.approx(mean_squared_error(a, b))
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(b, a, data_range=span))
    assert found.pearson == pytest.approx(stats.pearsonr(a.ravel(), b.ravel()).statistic)
    assert found.contrast_ratio == pytest.approx(a.std() / b.std())
    assert found.ssim == pytest.approx(naive_ssim(a, b, span))
    assert found.psd is not None
    assert found.psd.density == pytest.approx(compare_power(a, b).density)
    assert found.frc is not None
    assert found.frc.correlation == pytest.approx(fourier_ring_correlation(a, b).correlation)


def test_phase_metrics_are_those_of_scikit_image_and_scipy() -> None:
    prediction, reference = pair()
    found = compare(prediction, reference).phase
    a, b = np.angle(prediction), np.angle(reference)
    assert np.abs(a).max() < np.pi - 0.5  # nothing wraps, so that angles may be compared as they are
    span = b.max() - b.min()
    assert found.data_range == pytest.approx(span)
    assert found.mae == pytest.approx(np.abs(np.angle(prediction * reference.conj())).mean())
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(b, a, data_range=span))
    assert found.pearson == pytest.approx(stats.pearsonr(a.ravel(), b.ravel()).statistic)
    assert found.contrast_ratio == pytest.approx(a.std() / b.std())
    # SSIM depends on the level: both maps are taken about the mean angle of the reference.
    centre = np.angle(np.exp(1j * b).mean())
    assert found.ssim == pytest.approx(naive_ssim(a - centre, b - centre, span))


def gaussian_window() -> np.ndarray:
    distance = np.arange(11) - 5
    line = np.exp(-(distance**2) / (2 * 1.5**2))
    return np.outer(line, line) / line.sum() ** 2


def naive_terms(a: np.ndarray, b: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and contrast-structure of Wang et al. by correlation with the 11 x 11 window, valid part."""

    def mean(image: np.ndarray) -> np.ndarray:
        return signal.correlate(image, gaussian_window(), mode="valid", method="direct")

    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    return (2 * ma * mb + c1) / (ma**2 + mb**2 + c1), (2 * vab + c2) / (va + vb + c2)


def naive_ssim(a: np.ndarray, b: np.ndarray, span: float) -> float:
    luminance, structure = naive_terms(a, b, span)
    return float(np.mean(luminance * structure))


def test_ms_ssim_is_its_formula() -> None:
    a, b = real_pair((97, 120))
    span = float(np.ptp(b))
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363])
    weights = weights / weights.sum()
    expected, one, two = 1.0, a, b
    for scale, weight in enumerate(weights):
        luminance, structure = naive_terms(one, two, span)
        expected *= np.mean(structure if scale < 3 else luminance * structure) ** weight
        one, two = (
            signal.correlate(image, np.full((2, 2), 0.25), mode="valid")[::2, ::2] for image in (one, two)
        )
    value, scales = ms_ssim(a, b, span)
    assert scales == 4
    assert value == pytest.approx(expected)


def test_the_ptychopinn_profile_is_its_formulas() -> None:
    prediction, reference = pair(64, 64)
    found = compare_as_ptychopinn(1.3 * prediction, reference)
    true = np.abs(reference)
    scaled = np.abs(prediction) * true.mean() / np.abs(prediction).mean()
    assert found.amplitude.mae == pytest.approx(np.abs(true - scaled).mean())
    assert found.amplitude.mse == pytest.approx(mean_squared_error(true, scaled))
    assert found.amplitude.psnr == pytest.approx(peak_signal_noise_ratio(true, scaled, data_range=255))
    assert found.amplitude.ssim == pytest.approx(
        structural_similarity(true, scaled, data_range=true.max() - true.min())
    )
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]

    def flat(angle: np.ndarray) -> np.ndarray:
        # On a centred grid the plane is found axis by axis.
        slopes = [(angle * axis).sum() / (axis**2).sum() for axis in (rows, columns)]
        return angle - angle.mean() - slopes[0] * rows - slopes[1] * columns

    phase, other = flat(np.angle(reference)), flat(np.angle(prediction))
    assert found.phase.mae == pytest.approx(np.abs(phase - other).mean())
    assert found.phase.ssim == pytest.approx(
        structural_similarity(phase + np.pi, other + np.pi, data_range=2 * np.pi)
    )
    assert found.amplitude.frc50 == naive_frc50(scaled, true)
    assert found.phase.frc50 == naive_frc50(other, phase)
    assert found.phase.ms_ssim == pytest.approx(
        naive_ptychopinn_ms_ssim(*((image + np.pi) / (2 * np.pi) for image in (other, phase)))
    )


def naive_frc50(prediction: np.ndarray, truth: np.ndarray) -> int:
    one, two = np.fft.fft2(truth), np.fft.fft2(prediction)
    for number, ring in sorted(naive_rings(truth.shape).items()):
        cross = abs(sum(one[at] * two[at].conjugate() for at in ring))
        powers = math.prod(sum(abs(image[at]) ** 2 for at in ring) for image in (one, two))
        if cross / math.sqrt(powers) < 0.5:
            return number
    return len(naive_rings(truth.shape))


def naive_ptychopinn_ms_ssim(prediction: np.ndarray, truth: np.ndarray) -> float:
    span = max(np.ptp(prediction), np.ptp(truth))
    value = 1.0
    for step, weight in ((1, 0.0448), (2, 0.2856), (4, 0.3001), (8, 0.2363)):
        value *= (
            structural_similarity(truth[::step, ::step], prediction[::step, ::step], data_range=span)
            ** weight
        )
    return value
