"""What all pictures of an object share: quantities, colours, scales, captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.metrics.comparison import Comparison, MetricSet
from ptychonnx.harness.metrics.image_similarity import wrap

__all__ = ["OUTSIDE", "Panel", "Quantity", "quantities"]

# Perceptually uniform: equal steps of a value look equally large.
AMPLITUDE_MAP, PHASE_MAP, ERROR_MAP = "viridis", "cividis", "magma"
OUTSIDE = "#d9d9d9"


@dataclass(frozen=True)
class Panel:
    """One object to draw: complex [rows, columns], with its metrics if it was compared."""

    title: str
    object: NDArray[np.complexfloating]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Quantity:
    """Images of one quantity on one scale.

    Attributes
    ----------
    colours
        Name of a colour map of matplotlib.
    titles
        (title, caption) of each image.
    images
        Each [rows, columns], all of one shape; NaN outside the region.
    limits
        Values of the ends of the scale.
    """

    name: str
    colours: str
    titles: list[tuple[str, str]]
    images: list[NDArray[np.floating]]
    limits: tuple[float, float]


def quantities(
    reference: NDArray[np.complexfloating] | None, region: NDArray[np.bool_], panels: Sequence[Panel]
) -> list[Quantity]:
    """Amplitude and phase of the reference and all panels, then the magnitudes of the errors of the panels.

    Parameters
    ----------
    reference
        complex [rows, columns], whose values set the scales of amplitude and phase. Without it all panels together
        do, each phase is about its own mean angle, and there are no errors.
    region
        bool [rows, columns]; what lies outside is left out.
    """

    def quantity(
        name: str,
        colours: str,
        titles: list[tuple[str, str]],
        images: list[NDArray],
        low: float | None,
        of: int,
    ) -> Quantity:
        ends = _limits([image[region] for image in images[:of]])
        cut = [_shown(image, region) for image in images]
        return Quantity(name, colours, titles, cut, (ends[0] if low is None else low, ends[1]))

    everything = len(panels)
    if reference is None:
        titles = [(panel.title, "") for panel in panels]
        amplitudes = [np.abs(panel.object) for panel in panels]
        phases = [wrap(np.angle(panel.object) - _mean_angle(panel.object, region)) for panel in panels]
        return [
            quantity("amplitude", AMPLITUDE_MAP, titles, amplitudes, None, everything),
            quantity("phase (rad)", PHASE_MAP, titles, phases, None, everything),
        ]
    centre = _mean_angle(reference, region)
    objects = [reference, *(panel.object for panel in panels)]
    amplitudes = [np.abs(each) for each in objects]
    phases = [wrap(np.angle(each) - centre) for each in objects]
    amplitude_errors = [np.abs(each - amplitudes[0]) for each in amplitudes[1:]]
    phase_errors = [np.abs(wrap(each - phases[0])) for each in phases[1:]]
    of_amplitude, of_phase = (
        [("reference", ""), *((panel.title, _similarity(panel.comparison, name)) for panel in panels)]
        for name in ("amplitude", "phase")
    )
    amplitude_error, phase_error = (
        [(panel.title, _error(panel.comparison, name)) for panel in panels] for name in ("amplitude", "phase")
    )
    return [
        quantity("amplitude", AMPLITUDE_MAP, of_amplitude, amplitudes, None, 1),
        quantity("phase (rad)", PHASE_MAP, of_phase, phases, None, 1),
        quantity("|amplitude error|", ERROR_MAP, amplitude_error, amplitude_errors, 0.0, everything),
        quantity("|phase error| (rad)", ERROR_MAP, phase_error, phase_errors, 0.0, everything),
    ]


def _shown(image: NDArray[np.floating], region: NDArray[np.bool_]) -> NDArray[np.floating]:
    """The smallest rectangle that holds the region; NaN outside it."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return np.where(region, image, np.nan)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _mean_angle(image: NDArray[np.complexfloating], region: NDArray[np.bool_]) -> float:
    """Mean direction of the phases in the region, in radians; 0 if none is finite."""
    values = image[region]
    values = values[np.isfinite(values)]
    return float(np.angle(np.mean(np.exp(1j * np.angle(values))))) if values.size else 0.0


def _limits(values: Sequence[NDArray[np.floating]]) -> tuple[float, float]:
    """Scale of a quantity: all but the outermost 0.2 %, and never of no extent."""
    finite = np.concatenate([part[np.isfinite(part)] for part in values])
    if not finite.size:
        return (0.0, 1.0)
    low, high = (float(value) for value in np.percentile(finite, (0.2, 99.8)))
    room = max(1e-3, 1e-3 * abs(low)) if high - low < 1e-6 else 0.0
    return (low - room, high + room)


def _similarity(comparison: Comparison | None, quantity: str) -> str:
    if comparison is None:
        return ""
    metrics: MetricSet = getattr(comparison, quantity)
    if metrics.collapsed:
        return "COLLAPSED"
    return ", ".join(part for part in (_value("SSIM", metrics.ssim), _value("r", metrics.pearson)) if part)


def _error(comparison: Comparison | None, quantity: str) -> str:
    return "" if comparison is None else _value("MAE", getattr(comparison, quantity).mae)


def _value(name: str, value: float | None) -> str:
    return "" if value is None else f"{name} {value:.3f}"
