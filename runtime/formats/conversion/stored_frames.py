"""Frames of a scan as they are stored, to look at before all of them are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.stacks import Stack
from ptychonnx.runtime.formats.conversion.scaling import valid_values
from ptychonnx.runtime.scan.amplitudes import Amplitudes, sample_of

__all__ = ["StoredFrames"]


@dataclass(frozen=True)
class StoredFrames:
    """Frames as they are stored, or a part of each."""

    stack: Stack | Amplitudes  # [n, rows, columns]
    mask: NDArray[np.bool_] | None  # bool [rows, columns], True = valid
    where: str  # file and key, at the beginning of error messages
    quantity: str = "counts"  # `counts` or `amplitude`
    # Part of the frames to look at.
    rows: slice = field(default_factory=lambda: slice(None))
    columns: slice = field(default_factory=lambda: slice(None))

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """The valid pixels of the part; all of them without a mask, or with one of another shape."""
        shape = self.stack.shape[1:]
        whole = np.broadcast_to(True, shape) if self.mask is None or self.mask.shape != shape else self.mask
        return whole[self.rows, self.columns]

    @property
    def first_pixel(self) -> tuple[int, int]:
        """(row, column) in the frames of the part's pixel [0, 0]."""
        return self.rows.start or 0, self.columns.start or 0

    def frame(self, index: int) -> NDArray:
        """The part of one frame."""
        return np.asarray(self.stack[slice(index, index + 1), self.rows, self.columns])[0]

    def sample(self, most: int) -> Iterator[tuple[int, NDArray, NDArray[np.bool_]]]:
        """Number, values and valid values of at most so many frames, evenly spaced; damaged ones are left out.

        Raises InputError if the values are not real numbers.
        """
        for index in sample_of(self.stack.shape[0], most).tolist():
            try:
                frame = self.frame(index)
            except (OSError, RuntimeError, KeyError, InputError):  # named when it is read
                continue
            yield index, frame, valid_values(frame, self.where)
