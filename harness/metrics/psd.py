"""Power spectral density: the contrast of an image at each spatial frequency, whether right or wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.metrics.fourier_rings import Rings, hann_window, rings_of, windowed_transform
from ptychonnx.runtime.errors import InputError

__all__ = ["FLOOR_DB", "PowerSpectrum", "compare_power", "power_spectral_density"]

# Where the reference is weaker than this relative to its strongest ring, its spectrum consists of rounding errors and
# leakage through the window, and a ratio to it is meaningless.
FLOOR_DB = 60.0


class PowerSpectrum(BaseModel):
    """Radially averaged power spectral densities of a reconstruction and of its reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frequency: list[float] = Field(description="frequency of each ring in cycles per pixel; Nyquist is 0.5")
    density: list[float] = Field(
        description="density of the reconstruction, in its unit squared per (cycle per pixel) squared"
    )
    reference_density: list[float]
    rings: int = Field(
        description="number of rings in which the reference is at most 60 dB below its strongest ring"
    )
    log_error_db: float | None = Field(
        description="root mean square over these rings of 10 log10(density / reference_density); null: a density is 0"
    )
    bias_db: float | None = Field(
        description="mean over these rings of 10 log10(density / reference_density); below 0: too smooth"
    )


def power_spectral_density(image: NDArray[np.floating], rings: Rings | None = None) -> NDArray[np.float64]:
    """Radially averaged power spectral density [rings] of a real image [rows, columns].

    ``mean over the ring of |F|^2 / sum w^2`` (the modified periodogram: Welch, IEEE Transactions on Audio and
    Electroacoustics 15, 70, 1967), where F is the transform of the image without its mean, multiplied by the Hann
    window w. White noise of variance v has density v at every frequency; the integral over all frequencies is the
    variance.

    Raises InputError if a side has less than 4 pixels.
    """
    rings = rings or rings_of(image.shape)
    power = np.abs(windowed_transform(image)) ** 2 / np.sum(hann_window(image.shape) ** 2)
    return rings.sum(power) / rings.pixels


def compare_power(prediction: NDArray[np.floating], reference: NDArray[np.floating]) -> PowerSpectrum:
    """Power spectral densities of two images on the same pixels, and the difference of their logarithms.

    The density does not depend on where structures are, but shows what a correlation does not: a network that loses
    fine detail or adds noise.

    Raises InputError if the shapes differ or a side has less than 4 pixels.

    Both are [rows, columns]; the reference must not be constant.
    """
    if prediction.shape != reference.shape:
        raise InputError(
            f"PSD: images have shapes {prediction.shape} and {reference.shape}, expected equal ones"
        )
    rings = rings_of(reference.shape)
    density, expected = (power_spectral_density(image, rings) for image in (prediction, reference))
    band = (expected > 0) & (expected >= expected.max() * 10 ** (-FLOOR_DB / 10))
    ratio = density[band] / expected[band]
    decibels = 10 * np.log10(ratio) if ratio.size and ratio.min() > 0 else None
    return PowerSpectrum(
        frequency=rings.frequency.tolist(),
        density=density.tolist(),
        reference_density=expected.tolist(),
        rings=int(band.sum()),
        log_error_db=None if decibels is None else float(np.sqrt(np.mean(decibels**2))),
        bias_db=None if decibels is None else float(np.mean(decibels)),
    )
