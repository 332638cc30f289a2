"""Metrics of real images: errors, structural similarity, correlation and contrast."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MS_SSIM_WEIGHTS",
    "SSIM_WINDOW",
    "contrast_ratio",
    "mae",
    "ms_ssim",
    "mse",
    "pearson",
    "psnr",
    "ssim",
    "ssim_map",
    "wrap",
]

# Wang, Simoncelli and Bovik (2003), section 4: exponents from experiments with observers, finest scale first.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Wang et al. (2004): an 11 x 11 Gaussian window with a standard deviation of 1.5 pixels, K1 = 0.01, K2 = 0.03.
SSIM_WINDOW = 11
_SIGMA = 1.5
_TRUNCATE = 3.5
_K1, _K2 = 0.01, 0.03


def wrap(angle: NDArray[np.floating]) -> NDArray[np.float64]:
    """Angles in radians wrapped to (-pi, pi]."""
    return np.pi - np.mod(np.pi - np.asarray(angle, dtype=np.float64), 2 * np.pi)


def mae(difference: NDArray[np.floating]) -> float:
    """Mean absolute value of differences (of phases: wrapped ones), in their unit."""
    return float(np.mean(np.abs(difference)))


def mse(difference: NDArray[np.floating]) -> float:
    """Mean square of differences (of phases: wrapped ones), in their unit squared."""
    return float(np.mean(np.square(difference, dtype=np.float64)))


def psnr(mean_square_error: float, data_range: float) -> float:
    """Peak signal-to-noise ratio ``10 log10(range^2 / MSE)`` in dB; infinite for equal images.

    `data_range`: range (maximum minus minimum) of the reference over the region.
    """
    if mean_square_error == 0:
        return math.inf
    return 10 * math.log10(data_range**2 / mean_square_error)


def pearson(prediction: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Pearson correlation of two sets of values [n]; neither may be constant."""
    return float(np.corrcoef(prediction, reference, dtype=np.float64)[0, 1])


def contrast_ratio(prediction: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Standard deviation of the prediction over that of the reference, values [n]."""
    return float(np.std(prediction, dtype=np.float64) / np.std(reference, dtype=np.float64))


def ssim(prediction: NDArray[np.floating], reference: NDArray[np.floating], data_range: float) -> float:
    """Structural similarity of two images [rows, columns], each side at least `SSIM_WINDOW` pixels.

    With the Gaussian window and the population covariance of Wang, Bovik, Sheikh and Simoncelli, IEEE
    Transactions on Image Processing 13, 600 (2004).

    `data_range`: L of the paper: range of the reference over the region.
    """
    return _structural_similarity(prediction, reference, data_range)[0]


def ssim_map(
    prediction: NDArray[np.floating], reference: NDArray[np.floating], data_range: float
) -> NDArray[np.float64]:
    """Local values [rows, columns] whose mean, without the edges, is `ssim`."""
    return _structural_similarity(prediction, reference, data_range)[1]


def _structural_similarity(
    prediction: NDArray[np.floating], reference: NDArray[np.floating], data_range: float
) -> tuple[float, NDArray[np.float64]]:
    from skimage.metrics import structural_similarity

    mean, local = structural_similarity(
        reference.astype(np.float64),
        prediction.astype(np.float64),
        data_range=data_range,
        gaussian_weights=True,
        sigma=_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return float(mean), local


def ms_ssim(
    prediction: NDArray[np.floating],
    reference: NDArray[np.floating],
    data_range: float,
    weights: tuple[float, ...] = MS_SSIM_WEIGHTS,
) -> tuple[float, int]:
    """Multi-scale structural similarity, and the number of scales.

    ``prod_j mean(c_j s_j)^w_j``, where the coarsest scale also includes the luminance: ``mean(l c s)^w`` (Wang,
    Simoncelli and Bovik, 37th Asilomar Conference on Signals, 1398, 2003). Between scales the images are averaged over
    2 x 2 pixels. A mean below 0 counts as 0.

    `prediction`, `reference`: [rows, columns], each side at least `SSIM_WINDOW` pixels. If the window does not fit into
    the coarsest scale (sides under 176 pixels for five scales), fewer scales are used, and their weights are
    normalised.
    """
    side = min(reference.shape)
    scales = max(1, min(len(weights), int(math.log2(side / SSIM_WINDOW)) + 1))
    used = np.array(weights[:scales]) / sum(weights[:scales])
    a, b = prediction.astype(np.float64), reference.astype(np.float64)
    value = 1.0
    for scale, exponent in enumerate(used):
        luminance, structure = _components(a, b, data_range)
        similarity = structure if scale < scales - 1 else luminance * structure
        value *= max(float(np.mean(similarity)), 0.0) ** exponent
        a, b = _halve(a), _halve(b)
    return value, scales


def _components(
    a: NDArray[np.float64], b: NDArray[np.float64], data_range: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luminance and contrast-times-structure terms of SSIM, where the window lies inside the image."""
    from skimage.filters import gaussian

    def local_mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian(image, sigma=_SIGMA, truncate=_TRUNCATE, mode="reflect", preserve_range=True)

    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_a, mean_b = local_mean(a), local_mean(b)
    variances = local_mean(a * a) - mean_a**2 + local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    inside = (slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)),) * 2
    return luminance[inside], structure[inside]


def _halve(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over 2 x 2 pixels; an odd last row or column is left out."""
    rows, columns = (side // 2 * 2 for side in image.shape)
    return image[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
