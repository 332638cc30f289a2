"""Per-pixel stitching weights."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Weighting
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.forward_model import illumination

__all__ = ["patch_weight"]


def patch_weight(
    weighting: str, size: int, probe: NDArray[np.complexfloating] | None = None, window: int | None = None
) -> NDArray[np.float64]:
    """Weight of each pixel of a patch, float64 [size, size].

    * ``probe``: the illumination, sum_modes |P|^2, since the data determine the object where photons fell.
    * ``window``: a Hann window, for scans without a known probe.
    * ``uniform``: 1 everywhere.
    * ``crop``: 1 in the central half of each axis, 0 outside.

    Raises InputError if the weighting is unknown, or is ``probe`` without a probe, or one that is dark in the window.

    * `size`: side N of a patch in pixels.
    * `probe`: complex [modes, N, N], for ``probe``.
    * `window`: side of the central square that patches cover; weights are 0 outside. None if they cover all.
    """
    weight = _full_weight(weighting, size, probe)
    if window is None:
        return weight
    start = size // 2 - window // 2
    covered = slice(start, start + window)
    inside = np.zeros_like(weight)
    inside[covered, covered] = weight[covered, covered]
    if not inside.max() > 0:
        raise InputError(
            f"the probe is dark in the central {window} pixels that patches cover, expected light there"
        )
    return inside / inside.max()


def _full_weight(weighting: str, size: int, probe: NDArray[np.complexfloating] | None) -> NDArray[np.float64]:
    if weighting == "probe":
        if probe is None:
            raise InputError("weighting 'probe' needs a probe and the scan has none: choose another")
        density = illumination(probe)
        return density / density.max()
    if weighting == "window":
        # Sampled at half pixels, so that no weight is 0 and the borders of the canvas are covered.
        profile = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
        return np.outer(profile, profile)
    if weighting == "uniform":
        return np.ones((size, size))
    if weighting == "crop":
        weight = np.zeros((size, size))
        margin = size // 4
        weight[margin : size - margin, margin : size - margin] = 1.0
        return weight
    raise InputError(f"weighting {weighting!r} is unknown, expected one of {', '.join(get_args(Weighting))}")
