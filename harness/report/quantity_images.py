"""Images of amplitude, phase and errors with common scales, for figures and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.metrics.comparison import Comparison, MetricSet
from ptychonnx.harness.metrics.image_similarity import wrap
from ptychonnx.harness.metrics.region import bounding_rectangle
from ptychonnx.runtime.reconstruction.uncertainty import Uncertainty

__all__ = ["OUTSIDE", "Panel", "QuantityImages", "quantity_images", "uncertainty_images"]

# Perceptually uniform colour maps.
AMPLITUDE_MAP, PHASE_MAP, ERROR_MAP = "viridis", "cividis", "magma"
OUTSIDE = "#d9d9d9"


@dataclass(frozen=True)
class Panel:
    """One object to draw: complex [rows, columns], with its metrics if it was compared."""

    title: str
    object: NDArray[np.complexfloating]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class QuantityImages:
    """Images of one quantity on one scale.

    * `name`: name of the quantity with its unit.
    * `colours`: name of a colour map of matplotlib.
    * `titles`: (title, caption) of each image.
    * `images`: each [rows, columns], all of one shape; NaN outside the region.
    * `limits`: values at the ends of the scale.
    """

    name: str
    colours: str
    titles: list[tuple[str, str]]
    images: list[NDArray[np.floating]]
    limits: tuple[float, float]


def quantity_images(
    reference: NDArray[np.complexfloating] | None, region: NDArray[np.bool_], panels: Sequence[Panel]
) -> list[QuantityImages]:
    """Amplitude and phase of the reference and all panels, and with a reference the errors of all panels.

    * `reference`: complex [rows, columns], which sets the scales of amplitude and phase. Without it, all panels set the
      scales, and each phase is relative to its own mean angle.
    * `region`: bool [rows, columns]; pixels outside are left out.
    """

    objects = [panel.object for panel in panels]
    if reference is None:
        centres = [_mean_angle(image, region) for image in objects]
    else:
        objects = [reference, *objects]
        centres = [_mean_angle(reference, region)] * len(objects)
    amplitudes = [np.abs(image) for image in objects]
    phases = [wrap(np.angle(image) - centre) for image, centre in zip(objects, centres, strict=True)]

    def of_objects(name: str, quantity: str, colours: str, images: list[NDArray]) -> QuantityImages:
        titles = [(panel.title, _similarity(panel.comparison, quantity)) for panel in panels]
        if reference is not None:
            titles = [("reference", ""), *titles]
        scaling = images if reference is None else images[:1]
        limits = _limits([image[region] for image in scaling])
        return QuantityImages(name, colours, titles, [_cropped(image, region) for image in images], limits)

    def of_errors(name: str, quantity: str, images: list[NDArray]) -> QuantityImages:
        titles = [(panel.title, _error(panel.comparison, quantity)) for panel in panels]
        limits = (0.0, _limits([image[region] for image in images])[1])
        return QuantityImages(name, ERROR_MAP, titles, [_cropped(image, region) for image in images], limits)

    quantities = [
        of_objects("amplitude", "amplitude", AMPLITUDE_MAP, amplitudes),
        of_objects("phase (rad)", "phase", PHASE_MAP, phases),
    ]
    if reference is None:
        return quantities
    amplitude_errors = [np.abs(image - amplitudes[0]) for image in amplitudes[1:]]
    phase_errors = [np.abs(wrap(image - phases[0])) for image in phases[1:]]
    return [
        *quantities,
        of_errors("|amplitude error|", "amplitude", amplitude_errors),
        of_errors("|phase error| (rad)", "phase", phase_errors),
    ]


def uncertainty_images(uncertainty: Uncertainty, region: NDArray[np.bool_]) -> list[QuantityImages]:
    """Standard deviations of amplitude and phase of one object, with a scale each."""
    return [
        QuantityImages(
            name, ERROR_MAP, [("", "")], [_cropped(image, region)], (0.0, _limits([image[region]])[1])
        )
        for name, image in (
            ("amplitude, std. dev.", uncertainty.amplitude),
            ("phase, std. dev. (rad)", uncertainty.phase),
        )
    ]


def _cropped(image: NDArray[np.floating], region: NDArray[np.bool_]) -> NDArray[np.floating]:
    """The bounding box of the region; NaN outside the region."""
    return np.where(region, image, np.nan)[bounding_rectangle(region).slices]


def _mean_angle(image: NDArray[np.complexfloating], region: NDArray[np.bool_]) -> float:
    """Mean angle in the region in radians; 0 if no value is finite."""
    values = image[region]
    values = values[np.isfinite(values)]
    return float(np.angle(np.mean(np.exp(1j * np.angle(values))))) if values.size else 0.0


def _limits(values: Sequence[NDArray[np.floating]]) -> tuple[float, float]:
    """Ends of a scale without the outermost 0.2 % of the values; they always differ."""
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
