"""Fourier ring correlation: the spatial frequency up to which two images agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.metrics.fourier_rings import rings_of, windowed_transform
from ptychonnx.runtime.errors import InputError

__all__ = ["HALF", "SEVENTH", "Resolution", "RingCorrelation", "cutoff", "fourier_ring_correlation"]

HALF = 0.5
SEVENTH = 1 / 7
_SIGMAS = 2.0
_LOWEST_RINGS = 3


class Resolution(BaseModel):
    """Half-period at each cut-off: the width of the finest line that still agrees.

    Null if the threshold is never crossed (the half-period is at most 1 pixel) or if nothing agrees (cut-off 0).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    half: float | None = Field(description="at the cut-off of 0.5")
    seventh: float | None = Field(description="at the cut-off of 1/7")
    two_sigma: float | None = Field(description="at the cut-off of the 2-sigma curve")


class RingCorrelation(BaseModel):
    """A Fourier ring correlation and its cut-offs at the usual thresholds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frequency: list[float] = Field(description="frequency of each ring in cycles per pixel; Nyquist is 0.5")
    correlation: list[float]
    two_sigma: list[float] = Field(
        description="twice the standard deviation of the correlation of unrelated images in each ring"
    )
    cutoff_half: float | None = Field(
        description="cycles per pixel where it falls below 0.5; null: never crossed"
    )
    cutoff_seventh: float | None = Field(
        description="cycles per pixel where it falls below 1/7; null: never crossed"
    )
    cutoff_two_sigma: float | None = Field(
        description="cycles per pixel where it falls below the 2-sigma curve; null: never crossed"
    )
    half_period_px: Resolution
    half_period_m: Resolution | None = Field(description="null if the pixel size is unknown")
    text: str = Field(description="the cut-offs in words")


def fourier_ring_correlation(
    prediction: NDArray[np.floating], reference: NDArray[np.floating], pixel_size: float | None = None
) -> RingCorrelation:
    """Correlate two real images ring by ring in Fourier space.

    ``FRC(q) = Re sum F1 conj(F2) / sqrt(sum |F1|^2 sum |F2|^2)`` over the ring (van Heel and Schatz, Journal
    of Structural Biology 151, 250, 2005). The mean is removed and a Hann window applied first, since the jump
    between opposite borders would correlate at every frequency. The real part is used instead of the magnitude, because
    structures of opposite sign or displaced structures do not agree. Rings are one Fourier pixel (of the shorter side)
    wide, from 1 up to the Nyquist frequency; the corners beyond are left out.

    The 2-sigma curve is ``2 / sqrt(n / 2)`` of the same paper, with n the number of Fourier pixels in the ring. With
    the Hann window it is indeed twice the standard deviation of the correlation of unrelated images.

    Raises InputError if the shapes differ or a side has less than 4 pixels.

    * `prediction`, `reference`: [rows, columns], neither constant.
    * `pixel_size`: in metres, to state resolutions in metres too.
    """
    if prediction.shape != reference.shape:
        raise InputError(
            f"FRC: images have shapes {prediction.shape} and {reference.shape}, expected equal ones"
        )
    rings = rings_of(reference.shape)
    first, second = windowed_transform(prediction), windowed_transform(reference)
    cross = rings.sum((first * np.conj(second)).real)
    power = rings.sum(np.abs(first) ** 2) * rings.sum(np.abs(second) ** 2)
    correlation = np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)
    two_sigma = _SIGMAS / np.sqrt(rings.pixels / 2)
    half, seventh, sigma = (
        cutoff(rings.frequency, correlation, threshold) for threshold in (HALF, SEVENTH, two_sigma)
    )
    return RingCorrelation(
        frequency=rings.frequency.tolist(),
        correlation=correlation.tolist(),
        two_sigma=two_sigma.tolist(),
        cutoff_half=half,
        cutoff_seventh=seventh,
        cutoff_two_sigma=sigma,
        half_period_px=_resolution(1.0, half, seventh, sigma),
        half_period_m=None if pixel_size is None else _resolution(pixel_size, half, seventh, sigma),
        text="; ".join(
            f"{name}: {_in_words(frequency, pixel_size)}"
            for name, frequency in (("0.5", half), ("1/7", seventh), ("2 sigma", sigma))
        ),
    )


def cutoff(
    frequency: NDArray[np.floating],
    correlation: NDArray[np.floating],
    threshold: float | NDArray[np.floating],
) -> float | None:
    """Frequency at which the curve first falls below the threshold, linearly interpolated.

    The lowest rings contain few Fourier pixels, and removing the mean affects them through the window. The search
    therefore starts at the first of the lowest three rings that reaches the threshold (or of all rings whose threshold
    is above 0.5, if they are more than three).

    `threshold`: one number, or one for each ring.
    The frequency is in cycles per pixel; 0 if none of the lowest rings reaches the threshold, None if the curve never
    falls below it.
    """
    limit = np.broadcast_to(np.asarray(threshold, dtype=np.float64), correlation.shape)
    margin = correlation - limit
    lowest = max(_LOWEST_RINGS, int(np.argmax(limit <= HALF)) if (limit <= HALF).any() else len(limit))
    reached = np.flatnonzero(margin[:lowest] >= 0)
    if not reached.size:
        return 0.0
    below = np.flatnonzero(margin[reached[0] :] < 0)
    if not below.size:
        return None
    index = int(reached[0] + below[0])
    part = margin[index - 1] / (margin[index - 1] - margin[index])
    return float(frequency[index - 1] + part * (frequency[index] - frequency[index - 1]))


def _resolution(pixel: float, *cutoffs: float | None) -> Resolution:
    half, seventh, two_sigma = (pixel / (2 * value) if value else None for value in cutoffs)
    return Resolution(half=half, seventh=seventh, two_sigma=two_sigma)


def _in_words(frequency: float | None, pixel_size: float | None) -> str:
    """A cut-off and its half-period in words."""
    if frequency == 0:
        return "below from the lowest rings on"

    def lengths(pixels: float) -> str:
        metres = "" if pixel_size is None else f" ({1e9 * pixel_size * pixels:.3g} nm)"
        return f"{pixels:.3g} pixel{'' if pixels == 1 else 's'}{metres}"

    if frequency is None:
        return f"never crossed, half-period of at most {lengths(1)}"
    return f"{frequency:.3f} cycles per pixel, half-period {lengths(1 / (2 * frequency))}"
