"""Frames from a detector become patterns, by the code that reads finished files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.conversion.dark_patterns import dark_patterns
from ptychonnx.runtime.formats.conversion.direct_beam import estimate_direct_beam, without_stuck_pixels
from ptychonnx.runtime.formats.conversion.frames import FramePlan, lazy_frames
from ptychonnx.runtime.formats.conversion.saturation import saturation_note
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.formats.read_options import Conventions, ReadOptions
from ptychonnx.runtime.live.events import Frame

__all__ = ["ConvertedFrames", "FrameConversion"]

_HINT = "--mask FILE masks pixels, "


@dataclass(frozen=True)
class ConvertedFrames:
    """Frames that became patterns, their amplitudes float32 [m, N, N], and why others by number were left out."""

    frames: list[Frame]
    patterns: NDArray[np.float32]
    left_out: dict[int, str]


class FrameConversion:
    """Crop, orientation, bins, mask and the step from counts to amplitudes.

    Everything is decided with the first frames of a series, since later ones are not known: a mask of pixels that are
    bad in any frame, and a direct beam that only the mean of all frames shows, must be given.

    * `shape`, `dtype`: (rows, columns) and type of the detector's frames.
    * `plan`: steps from a frame to a pattern.
    * `notes`: lines for the user.
    """

    def __init__(
        self,
        first: Sequence[Frame],
        options: ReadOptions,
        conventions: Conventions,
        mask: NDArray[np.bool_] | None,
        where: str,
    ) -> None:
        """Decide on the steps.

        Raises InputError if frames of this shape cannot be converted with these options.

        * `first`: the first frames of the series.
        * `conventions`: their quantity and the place of the direct beam.
        * `mask`: bool [rows, columns] of the detector, True = valid.
        * `where`: the source, at the beginning of error messages.
        """
        if options.bad_pixels == "mask":
            raise InputError(
                "--bad-pixels mask: needs all frames, expected refuse or zero for a scan that runs, or --mask FILE"
            )
        self.shape, self.dtype = first[0].image.shape, first[0].image.dtype
        self.quantity = conventions.quantity.value
        self._options, self._where = options, where
        self.notes: list[str] = []
        stack = np.stack([frame.image for frame in first if self._fits(frame)])
        self.plan = FramePlan.of(stack.shape, conventions.dc.value == "corner", options, where)
        stored = StoredFrames(stack, mask, where, self.quantity)
        self._mask = without_stuck_pixels(stored, self.notes.append)
        stored = replace(stored, mask=self._mask)
        if note := saturation_note(replace(stored, rows=self.plan.rows, columns=self.plan.columns)):
            self.notes.append(note)
        beam = estimate_direct_beam(stored)
        if options.dc is None and options.crop_centre is None and beam.place not in (None, "centre"):
            self.notes.append(
                f"dc: centre (assumed), but {beam.reason} of the first frames: is it --dc {beam.place}?"
            )
        self._brightest_row = beam.pixel[0]
        self.mask = lazy_frames(stored, self.plan, options.bad_pixels).mask

    def convert(self, frames: Sequence[Frame]) -> ConvertedFrames:
        """Convert frames; those that a finished file would leave out, or be refused for, are left out."""
        left_out: dict[int, str] = {}
        kept = []
        for frame in frames:
            if self._fits(frame):
                kept.append(frame)
            else:
                rows, columns = self.shape
                left_out[frame.number] = (
                    f"{' x '.join(map(str, frame.image.shape))} {frame.image.dtype}, expected {rows} x {columns} "
                    f"{self.dtype} like the first frame"
                )
        patterns = self._converted(kept, left_out)
        kept = [frame for frame in kept if frame.number not in left_out]
        return ConvertedFrames(kept, patterns, left_out)

    def _fits(self, frame: Frame) -> bool:
        return frame.image.shape == self.shape and frame.image.dtype == self.dtype

    def _converted(self, frames: Sequence[Frame], left_out: dict[int, str]) -> NDArray[np.float32]:
        size = self.plan.size
        if not frames:
            return np.empty((0, size, size), np.float32)
        options, stack = self._options, np.stack([frame.image for frame in frames])
        stored = StoredFrames(stack, self._mask, self._where, self.quantity)
        try:
            if not dark_patterns(stored, options.min_photons, self._brightest_row).any():
                return lazy_frames(stored, self.plan, options.bad_pixels, _HINT).diffraction[:]
            reason = "no photons" if options.min_photons is None else "too dark"
        except InputError as error:
            reason = str(error)
        if len(frames) > 1:
            # One of them is bad: each by itself shows which.
            return np.concatenate([self._converted([frame], left_out) for frame in frames])
        left_out[frames[0].number] = reason
        return np.empty((0, size, size), np.float32)
