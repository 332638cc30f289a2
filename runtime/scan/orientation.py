"""The eight axis-aligned orientations of an image or a diffraction pattern (dihedral group D4)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ORIENTATIONS", "Orientation", "orient_image", "orient_pattern"]

Orientation = Literal[
    "identity", "flip-rows", "flip-columns", "rot180", "transpose", "rot90", "rot270", "antitranspose"
]
# Transpose, then flip rows, then flip columns; rotations are anticlockwise, as in `numpy.rot90`.
ORIENTATIONS: dict[str, tuple[bool, bool, bool]] = {
    "identity": (False, False, False),
    "flip-rows": (False, True, False),
    "flip-columns": (False, False, True),
    "rot180": (False, True, True),
    "transpose": (True, False, False),
    "rot90": (True, True, False),
    "rot270": (True, False, True),
    "antitranspose": (True, True, True),
}


def orient_image(images: NDArray, orientation: str) -> NDArray:
    """Flip or rotate images [..., rows, columns] about their middle."""
    transposed, *flips = ORIENTATIONS[orientation]
    if transposed:
        images = images.swapaxes(-2, -1)
    for axis, flipped in zip((-2, -1), flips, strict=True):
        if flipped:
            images = np.flip(images, axis)
    return images


def orient_pattern(patterns: NDArray, orientation: str) -> NDArray:
    """Flip or rotate patterns [..., N, N] about the direct beam at [N // 2, N // 2].

    A flip is k -> -k about the origin of frequency space; for even N a flip of the image would move the direct beam by
    a pixel.
    """
    transposed, *flips = ORIENTATIONS[orientation]
    if transposed:
        patterns = patterns.swapaxes(-2, -1)
    for axis, flipped in zip((-2, -1), flips, strict=True):
        if flipped:
            patterns = np.flip(patterns, axis)
            if patterns.shape[axis] % 2 == 0:
                patterns = np.roll(patterns, 1, axis)
    return patterns
