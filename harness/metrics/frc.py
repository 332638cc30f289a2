"""Fourier ring correlation: up to which spatial frequency two images agree."""

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
    """Half-periods at the cut-offs: the width of the finest line that still agrees. Null: never crossed, so that
    it is 1 pixel or less; or not defined, since nothing agrees (the cut-off is 0)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    half: float | None = Field(description="at the cut-off of 0.5")
    seventh: float | None = Field(description="at the cut-off of 1/7")
    two_sigma: float | None = Field(description="at the cut-off of the 2-sigma curve")


class RingCorrelation(BaseModel):
    """A Fourier ring correlation and where it falls below the usual thresholds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frequency: list[float] = Field(description="of each ring, in cycles per pixel; Nyquist is 0.5")
    correlation: list[float]
    two_sigma: list[float] = Field(
        description="twice the standard deviation that unrelated images have in each ring"
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
    half_period_m: Resolution | None = Field(description="null if the size of a pixel is not known")
    text: str = Field(description="the cut-offs in words")


def fourier_ring_correlation(
    prediction: NDArray[np.floating], reference: NDArray[np.floating], pixel_size: float | None = None
) -> RingCorrelation:
    """Correlate two real images ring by ring in Fourier space.

    ``FRC(q) = Re sum F1 conj(F2) / sqrt(sum |F1|^2 sum |F2|^2)`` over the ring (van Heel and Schatz, Journal
    of Structural Biology 151, 250, 2005). The mean is removed and a Hann window applied first, since the jump
    between opposite borders would correlate at every frequency. The real part is taken, not the magnitude:
    structures of opposite sign or displaced ones do not agree. Rings are one pixel wide (of the shorter
    side), from 1 up to the Nyquist frequency; the corners beyond are left out.

    The 2-sigma curve is ``2 / sqrt(n / 2)`` of the same paper, with n the Fourier pixels of the ring. Behind the window
    it is what its name says: twice the standard deviation of the correlation of unrelated images.

    Parameters
    ----------
    prediction, reference
        [rows, columns], neither constant.
    pixel_size
        In metres, to state the resolution in metres too.

    Raises
    ------
    InputError
        If the shapes differ or a side has less than 4 pixels.
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

    None if it never does. The lowest rings hold few Fourier pixels, and the window smears the mean, which was
    removed, into them: the search starts at the first of the lowest three that reaches the threshold (or of those
    whose threshold is above 0.5, if they are more: so few pixels are significant only if they agree well). If none
    does, nothing is resolved at all, and the cut-off is 0.

    Parameters
    ----------
    threshold
        A number, or one for each ring.
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
    """A cut-off with its half-period."""
    if frequency == 0:
        return "below from the lowest rings on"

    def lengths(pixels: float) -> str:
        metres = "" if pixel_size is None else f" ({1e9 * pixel_size * pixels:.3g} nm)"
        return f"{pixels:.3g} pixel{'' if pixels == 1 else 's'}{metres}"

    if frequency is None:
        return f"never crossed, half-period of at most {lengths(1)}"
    return f"{frequency:.3f} cycles per pixel, half-period {lengths(1 / (2 * frequency))}"
