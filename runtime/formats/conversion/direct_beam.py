"""Where the direct beam is in the frames of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.formats.containers.stacks import Stack
from ptychonnx.runtime.formats.conversion.scaling import valid_values
from ptychonnx.runtime.formats.read_options import Convention

__all__ = ["detect_direct_beam"]

# Number of patterns whose mean shows where the direct beam is.
_SAMPLE = 16


def detect_direct_beam(stack: Stack, mask: NDArray[np.bool_] | None, where: str) -> Convention:
    """``centre`` or ``corner``, by the brightest pixel of the mean pattern, and the reason."""
    n, height, width = stack.shape
    total = np.zeros((height, width))
    for index in np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int)):
        frame = np.asarray(stack[slice(index, index + 1), slice(None), slice(None)])[0]
        total += np.where(valid_values(frame, where), frame, 0)
    if mask is not None and mask.shape == total.shape:
        total[~mask] = 0
    peak = np.array(np.unravel_index(np.argmax(total), total.shape))
    sides = np.array(total.shape)
    from_centre = np.abs(peak - sides // 2).max()
    from_corner = np.minimum(peak, sides - peak).max()
    place = "corner" if from_corner < from_centre else "centre"
    return Convention(place, f"the brightest pixel of the mean pattern is [{peak[0]}, {peak[1]}]")
