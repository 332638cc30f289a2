"""Metrics as PtychoPINN defines them, for comparison with its published tables; never the default.

The definitions are those of `ptycho/evaluation.py` in github.com/hoidn/PtychoPINN (2025) and of
github.com/s-sajid-ali/FRC, from which its ring correlation comes. They differ from `ptychonnx.harness.metrics.compare`:

* Region: the stitched image without a fixed margin. Ours is the illuminated region.
* Alignment: amplitudes are scaled by the ratio of their means, so that a blank image becomes as bright as the truth.
  Each phase, including that of the truth, loses a plane that is fitted to its wrapped angles: gradients that the
  network should have reconstructed are lost, and a single wrap spoils the fit. Ours removes one complex factor (and, if
  requested, one ramp) from the reconstruction, never from the truth.
* PSNR: the peak is 255 whatever the data, which for an object of range 1 is 48.13 dB more than ours.
* SSIM: a flat 7 x 7 window, and a range of 2 pi for the phase, so that a blank image of a weak phase object comes close
  to 1. Ours uses the range of the reference.
* MS-SSIM: the full SSIM of every scale is multiplied, amplitudes are blurred first (sigma 1), images are halved by
  dropping pixels, and exponents are not normalised when scales are missing. Ours follows Wang et al. (2003).
* FRC: the magnitude of the ring sums, with mean and borders, into the corners of Fourier space. FRC50 is the index of
  the first ring below 0.5, or the number of rings, so that it depends on the size of the image and saturates. Ours is a
  frequency, or "never crossed".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ptychonnx.harness.metrics.image_similarity import MS_SSIM_WEIGHTS
from ptychonnx.runtime.errors import InputError

__all__ = ["PtychoPinnComparison", "PtychoPinnMetrics", "compare_as_ptychopinn"]

_PEAK = 255.0
_WINDOW = 7


class PtychoPinnMetrics(BaseModel):
    """Metrics of amplitude or phase. `frc50` is a ring index, not a frequency; null where a definition divides by 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mae: float
    mse: float
    psnr: float
    ssim: float | None
    ms_ssim: float | None
    frc50: int | None


class PtychoPinnComparison(BaseModel):
    """Amplitude and phase by PtychoPINN's definitions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amplitude: PtychoPinnMetrics
    phase: PtychoPinnMetrics


def compare_as_ptychopinn(
    reconstruction: NDArray[np.complexfloating],
    reference: NDArray[np.complexfloating],
    *,
    margin: int = 0,
) -> PtychoPinnComparison:
    """Compare two complex images [rows, columns] without prior alignment.

    Raises InputError if the shapes differ or less than 7 x 7 pixels remain.

    `margin`: pixels that are cut off each side (half of PtychoPINN's `offset`).
    """
    if reconstruction.shape != reference.shape or min(reference.shape) - 2 * margin < _WINDOW:
        raise InputError(
            f"ptychopinn profile: shapes {reconstruction.shape} and {reference.shape} with a margin of "
            f"{margin}, expected equal shapes with at least {_WINDOW} x {_WINDOW} pixels inside the margin"
        )
    inner = tuple(slice(margin, side - margin) for side in reference.shape)
    predicted, true = reconstruction[inner].astype(np.complex128), reference[inner].astype(np.complex128)
    amplitude = np.abs(true)
    mean = np.mean(np.abs(predicted))
    scaled = np.abs(predicted) * (np.mean(amplitude) / mean if mean > 0 else 1.0)
    phase, flat = _without_plane(np.angle(true)), _without_plane(np.angle(predicted))
    # PtychoPINN computes the SSIM of the phase on (phase + pi) / (2 pi) with a range of 1.
    unit, unit_flat = ((image + np.pi) / (2 * np.pi) for image in (phase, flat))
    return PtychoPinnComparison(
        amplitude=PtychoPinnMetrics(
            **_errors(scaled, amplitude),
            ssim=_ssim(scaled, amplitude, float(np.ptp(amplitude))),
            ms_ssim=_ms_ssim(_blur(scaled), _blur(amplitude)),
            frc50=_frc50(scaled, amplitude),
        ),
        phase=PtychoPinnMetrics(
            **_errors(flat, phase),
            ssim=_ssim(unit_flat, unit, 1.0),
            ms_ssim=_ms_ssim(unit_flat, unit),
            frc50=_frc50(flat, phase),
        ),
    )


def _errors(prediction: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    difference = truth - prediction
    mean_square = float(np.mean(difference**2))
    # OpenCV's PSNR adds the smallest double to the root mean square, hence a finite value for equal images.
    psnr = 20 * math.log10(_PEAK / (math.sqrt(mean_square) + float(np.finfo(np.float64).eps)))
    return {"mae": float(np.mean(np.abs(difference))), "mse": mean_square, "psnr": psnr}


def _without_plane(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles minus their least-squares plane, without unwrapping."""
    rows, columns = np.indices(angle.shape)
    basis = np.stack([np.ones(angle.size), rows.ravel(), columns.ravel()], axis=1)
    coefficients = np.linalg.lstsq(basis, angle.ravel(), rcond=None)[0]
    return angle - (basis @ coefficients).reshape(angle.shape)


def _ssim(prediction: NDArray[np.float64], truth: NDArray[np.float64], data_range: float) -> float | None:
    from skimage.metrics import structural_similarity

    if data_range == 0:
        return None
    return float(structural_similarity(truth, prediction, data_range=data_range))


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    from skimage.filters import gaussian

    return gaussian(image, sigma=1.0, mode="reflect", preserve_range=True)


def _ms_ssim(prediction: NDArray[np.float64], truth: NDArray[np.float64]) -> float | None:
    data_range = float(max(np.ptp(prediction), np.ptp(truth)))
    value = 1.0
    for weight in MS_SSIM_WEIGHTS:
        similarity = _ssim(prediction, truth, data_range)
        if similarity is None:
            return None
        value *= (similarity if similarity >= 0 else 1e-4) ** weight
        prediction, truth = prediction[::2, ::2], truth[::2, ::2]
        if min(truth.shape) < _WINDOW:
            break
    return value


def _frc50(prediction: NDArray[np.float64], truth: NDArray[np.float64]) -> int | None:
    """Index of the first ring (0 is DC) whose correlation is below 0.5, or the number of rings."""
    if not truth.any():
        return None
    side = min(truth.shape)
    square = tuple(slice((length - side) // 2, (length - side) // 2 + side) for length in truth.shape)
    first, second = (np.fft.fftshift(np.fft.fft2(image[square])) for image in (truth, prediction))
    distance = np.arange(side) - side // 2
    ring = np.rint(np.hypot(distance[:, None], distance)).astype(int).ravel()

    def ring_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(ring, weights=values.ravel()).astype(np.float64)

    cross = first * np.conj(second)
    power = ring_sum(np.abs(first) ** 2) * ring_sum(np.abs(second) ** 2)
    magnitude = np.abs(ring_sum(cross.real) + 1j * ring_sum(cross.imag))
    correlation = np.divide(magnitude, np.sqrt(power), out=np.zeros(len(power)), where=power > 0)
    below = np.flatnonzero(correlation < 0.5)
    return int(below[0]) if below.size else len(correlation)
