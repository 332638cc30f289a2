"""The eight ways in which an image can lie, in NumPy and in a graph."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.adoption.builder import Builder

__all__ = ["Orientation", "turn", "turn_in_graph"]

# Rows reversed, columns reversed, and after that transposed.
_MOVES = {
    "identity": (False, False, False),
    "flip_rows": (True, False, False),
    "flip_columns": (False, True, False),
    "rotate_180": (True, True, False),
    "transpose": (False, False, True),
    "rotate_90": (False, True, True),
    "rotate_270": (True, False, True),
    "antitranspose": (True, True, True),
}
Orientation = Literal[
    "identity",
    "flip_rows",
    "flip_columns",
    "rotate_180",
    "transpose",
    "rotate_90",
    "rotate_270",
    "antitranspose",
]


def turn(images: NDArray, orientation: Orientation) -> NDArray:
    """Images [..., N, N] brought into an orientation; rotations are anticlockwise, as in `numpy.rot90`."""
    rows, columns, transposed = _MOVES[orientation]
    images = images[..., ::-1, :] if rows else images
    images = images[..., ::-1] if columns else images
    return np.swapaxes(images, -1, -2) if transposed else images


def turn_in_graph(builder: Builder, value: str, orientation: Orientation) -> str:
    """The same for a value [B, C, N, N]."""
    *reversed_axes, transposed = _MOVES[orientation]
    for axis, is_reversed in zip((2, 3), reversed_axes, strict=True):
        if is_reversed:
            value = builder.cut(value, axis, -1, -(2**31), -1)
    return builder.add("Transpose", value, perm=[0, 1, 3, 2]) if transposed else value
