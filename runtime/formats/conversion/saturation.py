"""Detectors that saturate below the largest number of their type: many patterns end at the same counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.stacks import Stack
from ptychonnx.runtime.formats.conversion.scaling import sample_of, valid_values
from ptychonnx.runtime.scan.amplitudes import Amplitudes

__all__ = ["SATURATION_REMEDY", "saturates", "saturation_note"]

SATURATION_REMEDY = "shorter exposures, an attenuator, or these pixels in the mask of the file"
# Below this many counts, several pixels share the largest number by chance.
_LEAST_COUNTS = 256
_LEAST_PATTERNS = 5


def saturates(counts: float, patterns: int, pixels: int) -> bool:
    """Whether that many patterns whose brightest pixel holds these very counts, in several pixels, are no chance.

    One pixel alone is a hot one, or the direct beam of a steady source.
    """
    return counts >= _LEAST_COUNTS and patterns >= _LEAST_PATTERNS and pixels > 1


def saturation_note(
    stack: Stack | Amplitudes,
    mask: NDArray[np.bool_] | None,
    quantity: str,
    where: str,
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> str:
    """A line for the user if the detector saturates in a sample of the frames; otherwise nothing.

    Parameters
    ----------
    mask
        bool [rows, columns], True = valid.
    quantity
        ``counts`` or ``amplitude``.
    rows, columns
        Part of the frames to look at.
    """
    valid_part = None if mask is None or mask.shape != stack.shape[1:] else mask[rows, columns]
    sample = sample_of(stack.shape[0])
    brightest, places = np.zeros(len(sample)), np.zeros(len(sample), np.intp)
    for place, index in enumerate(sample.tolist()):
        try:
            frame = np.asarray(stack[slice(index, index + 1), rows, columns])[0]
        except (OSError, RuntimeError, KeyError, InputError):  # damaged: named when it is read
            continue
        valid = valid_values(frame, where)
        frame = np.where(valid if valid_part is None else valid & valid_part, frame, frame.dtype.type(0))
        places[place] = frame.argmax()
        brightest[place] = frame.flat[places[place]]
    highest = float(brightest.max())
    alike = brightest == highest
    counts = highest**2 if quantity == "amplitude" else highest
    patterns, pixels = int(alike.sum()), len(np.unique(places[alike]))
    if not saturates(counts, patterns, pixels):
        return ""
    return (
        f"saturation: {patterns} of {len(sample)} patterns looked at end at the same {counts:.4g} counts, in {pixels} "
        f"pixels: the detector saturates, and the object will be wrong ({SATURATION_REMEDY})"
    )
