"""Fourier ring correlation: up to which spatial frequency two images agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from runtime.errors import InputError

__all__ = ["HALF", "SEVENTH", "RingCorrelation", "cutoff", "describe_cutoff", "fourier_ring_correlation"]

HALF = 0.5
SEVENTH = 1 / 7
_LOWEST_RINGS = 3


class RingCorrelation(BaseModel):
    """A Fourier ring correlation and where it falls below the usual thresholds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frequency: list[float] = Field(description="of each ring, in cycles per pixel; Nyquist is 0.5")
    correlation: list[float]
    cutoff_half: float | None = Field(
        description="cycles per pixel where it falls below 0.5; null: never crossed"
    )
    cutoff_seventh: float | None = Field(
        description="cycles per pixel where it falls below 1/7; null: never crossed"
    )
    text: str = Field(description="the cut-offs in words")
    period_half_m: float | None = Field(None, description="full period in metres at the cut-off of 0.5")
    period_seventh_m: float | None = Field(None, description="full period in metres at the cut-off of 1/7")


def fourier_ring_correlation(
    prediction: NDArray[np.floating], reference: NDArray[np.floating], pixel_size: float | None = None
) -> RingCorrelation:
    """Correlate two real images ring by ring in Fourier space.

    ``FRC(q) = Re sum F1 conj(F2) / sqrt(sum |F1|^2 sum |F2|^2)`` over the ring (van Heel and Schatz, Journal
    of Structural Biology 151, 250, 2005). The mean is removed and a Hann window applied first, since the jump
    between opposite borders would correlate at every frequency. The real part is taken, not the magnitude:
    structures of opposite sign or displaced ones do not agree. Rings are one pixel wide (of the shorter
    side), from 1 up to the Nyquist frequency; the corners beyond are left out.

    Parameters
    ----------
    prediction, reference
        [rows, columns], neither constant.
    pixel_size
        In metres, to state the cut-offs as full periods too.

    Raises
    ------
    InputError
        If the shapes differ or a side has less than 4 pixels.
    """
    if prediction.shape != reference.shape or min(reference.shape) < 4:
        raise InputError(
            f"FRC: images have shapes {prediction.shape} and {reference.shape}, expected equal ones of at "
            "least 4 x 4"
        )
    shape = reference.shape
    window = np.outer(_hann(shape[0]), _hann(shape[1]))
    first, second = (
        np.fft.fft2(window * (image - np.average(image.astype(np.float64), weights=window)))
        for image in (prediction, reference)
    )
    side = min(shape)
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    ring = np.rint(radius * side).astype(int).ravel()

    def ring_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(ring, weights=values.ravel()).astype(np.float64)[1 : side // 2 + 1]

    cross = ring_sum((first * np.conj(second)).real)
    power = ring_sum(np.abs(first) ** 2) * ring_sum(np.abs(second) ** 2)
    correlation = np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)
    frequency = np.arange(1, side // 2 + 1) / side
    half, seventh = cutoff(frequency, correlation, HALF), cutoff(frequency, correlation, SEVENTH)
    return RingCorrelation(
        frequency=frequency.tolist(),
        correlation=correlation.tolist(),
        cutoff_half=half,
        cutoff_seventh=seventh,
        text=f"0.5: {describe_cutoff(half)}; 1/7: {describe_cutoff(seventh)}",
        period_half_m=_period(half, pixel_size),
        period_seventh_m=_period(seventh, pixel_size),
    )


def cutoff(
    frequency: NDArray[np.floating], correlation: NDArray[np.floating], threshold: float
) -> float | None:
    """Frequency at which the curve first falls below the threshold, linearly interpolated.

    None if it never does. The lowest rings hold few Fourier pixels, and the window smears the mean, which was
    removed, into them: the search starts at the first of the lowest three that reaches the threshold. If none does,
    nothing is resolved at all, and the cut-off is 0.
    """
    reached = np.flatnonzero(correlation[:_LOWEST_RINGS] >= threshold)
    if not reached.size:
        return 0.0
    below = np.flatnonzero(correlation[reached[0] :] < threshold)
    if not below.size:
        return None
    index = int(reached[0] + below[0])
    high, low = correlation[index - 1], correlation[index]
    part = (high - threshold) / (high - low)
    return float(frequency[index - 1] + part * (frequency[index] - frequency[index - 1]))


def describe_cutoff(value: float | None) -> str:
    """A cut-off in words."""
    if value is None:
        return "never crossed"
    return f"{value:.3f} cycles per pixel" if value else "below from the lowest rings on"


def _hann(size: int) -> NDArray[np.float64]:
    # Sampled at half-pixels: no pixel is thrown away.
    return np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2


def _period(frequency: float | None, pixel_size: float | None) -> float | None:
    return pixel_size / frequency if frequency and pixel_size else None
