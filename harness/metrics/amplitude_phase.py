"""Real images that are compared: amplitude and phase of a reconstruction and of its reference."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.metrics.image_similarity import wrap

__all__ = ["UNWRAP_RANGE", "ImageTriple", "amplitude_images", "phase_images"]

# A reference whose phase spans more than this is unwrapped, or the cut at +-pi would count as structure.
UNWRAP_RANGE = 0.9 * 2 * math.pi


class ImageTriple(NamedTuple):
    """One quantity of a reconstruction and of its reference, and the difference, each float64 [rows, columns]."""

    prediction: NDArray[np.float64]
    reference: NDArray[np.float64]
    difference: NDArray[np.float64]


def amplitude_images(
    prediction: NDArray[np.complexfloating], reference: NDArray[np.complexfloating]
) -> ImageTriple:
    """Amplitudes of two complex images [rows, columns]."""
    predicted, true = np.abs(prediction).astype(np.float64), np.abs(reference).astype(np.float64)
    return ImageTriple(predicted, true, predicted - true)


def phase_images(
    prediction: NDArray[np.complexfloating], reference: NDArray[np.complexfloating], region: NDArray[np.bool_]
) -> ImageTriple:
    """Phases of two complex images [rows, columns] in rad, with the wrapped difference.

    Both are relative to the mean angle of the reference in the region, and unwrapped if the reference spans nearly 2 pi
    there.
    """
    # Mean of unit vectors: dark pixels count like bright ones, as they do in the metrics.
    centre = np.angle(np.mean(np.exp(1j * np.angle(reference[region]))))
    true, predicted = (wrap(np.angle(image) - centre) for image in (reference, prediction))
    difference = wrap(predicted - true)
    if np.ptp(true[region]) > UNWRAP_RANGE:
        true, predicted = _unwrap(true, region), _unwrap(predicted, region)
        cycles = np.rint(np.mean(true[region] - predicted[region]) / (2 * np.pi))
        predicted = predicted + 2 * np.pi * cycles
    return ImageTriple(predicted, true, difference)


def _unwrap(phase: NDArray[np.float64], region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Phase without jumps of 2 pi inside the region, 0 outside."""
    from skimage.restoration import unwrap_phase

    return np.ma.filled(unwrap_phase(np.ma.masked_array(phase, mask=~region)), 0.0)
