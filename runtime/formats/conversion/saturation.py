"""Detectors that saturate below the largest number of their type: many patterns end at the same counts."""

from __future__ import annotations

import numpy as np

from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames

__all__ = ["SATURATION_REMEDY", "saturates", "saturation_note"]

SATURATION_REMEDY = "shorter exposures, an attenuator, or these pixels in the mask of the file"
# Below this many counts, several pixels share the largest number by chance.
_LEAST_COUNTS = 256
_LEAST_PATTERNS = 5
_SAMPLE = 32


def saturates(counts: float, patterns: int, pixels: int) -> bool:
    """Whether that many patterns whose brightest pixel holds these very counts, in several pixels, are no chance.

    One pixel alone is a hot one, or the direct beam of a steady source.
    """
    return counts >= _LEAST_COUNTS and patterns >= _LEAST_PATTERNS and pixels > 1


def saturation_note(frames: StoredFrames) -> str:
    """A line for the user if the detector saturates in a sample of the frames; otherwise nothing."""
    trusted = frames.trusted
    found = []
    for _, frame, valid in frames.sample(_SAMPLE):
        counted = np.where(valid & trusted, frame, frame.dtype.type(0))
        place = int(counted.argmax())
        found.append((float(counted.flat[place]), place))
    if not found:
        return ""
    brightest, places = map(np.array, zip(*found, strict=True))
    highest = float(brightest.max())
    alike = brightest == highest
    counts = highest**2 if frames.quantity == "amplitude" else highest
    patterns, pixels = int(alike.sum()), len(np.unique(places[alike]))
    if not saturates(counts, patterns, pixels):
        return ""
    return (
        f"saturation: {patterns} of {len(found)} patterns looked at end at the same {counts:.4g} counts, in {pixels} "
        f"pixels: the detector saturates, and the object will be wrong ({SATURATION_REMEDY})"
    )
