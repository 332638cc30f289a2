"""A sample of the frames of a scan, to look at before all of them are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.stacks import Stack
from ptychonnx.runtime.formats.conversion.scaling import sample_of, valid_values
from ptychonnx.runtime.scan.amplitudes import Amplitudes

__all__ = ["sampled_frames", "trusted_pixels"]


def trusted_pixels(
    stack: Stack | Amplitudes, mask: NDArray[np.bool_] | None, rows: slice, columns: slice
) -> NDArray[np.bool_]:
    """The valid pixels of a part of the frames; all of them for a mask of other frames, and without one.

    `mask`: bool [rows, columns], True = valid.
    """
    whole = np.broadcast_to(True, stack.shape[1:]) if mask is None or mask.shape != stack.shape[1:] else mask
    return whole[rows, columns]


def sampled_frames(
    stack: Stack | Amplitudes, most: int, where: str, rows: slice, columns: slice
) -> Iterator[tuple[int, NDArray, NDArray[np.bool_]]]:
    """Number, values and valid values of at most so many frames, evenly spaced; damaged ones are left out.

    Raises InputError if the values are not real numbers.

    `rows`, `columns`: part of the frames to look at.
    """
    for index in sample_of(stack.shape[0], most).tolist():
        try:
            frame = np.asarray(stack[slice(index, index + 1), rows, columns])[0]
        except (OSError, RuntimeError, KeyError, InputError):  # named when it is read
            continue
        yield index, frame, valid_values(frame, where)
