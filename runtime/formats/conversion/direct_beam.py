"""Where the direct beam is in the frames of a scan, by statistics that single bad pixels cannot change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from ptychonnx.runtime.formats.conversion.scaling import valid_values
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.scan.amplitudes import sample_of

__all__ = ["DirectBeamEstimate", "estimate_direct_beam", "without_stuck_pixels"]

# Number of patterns whose mean shows where the direct beam is.
_SAMPLE = 16
_LARGEST_SIDE = 512
_MARKS_16: tuple[int, ...] = (2**16 - 1, 2**16 - 2, 2**15 - 1)
_MARKS_8: tuple[int, ...] = (2**8 - 1,)
# A pixel counts up to this multiple of its brightest neighbour: hot pixels have no bright neighbours.
_HOT = 4.0
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
# Where the intensity is concentrated, as a fraction of the way from the corner (0) to the centre (1).
_CORNER, _CENTRE = 0.35, 0.65
# Below this the intensity is spread so evenly that its centre means nothing.
_CONCENTRATION = 0.05
# Difference of roundness that tells one place from the other.
_ROUNDER = 0.1


@dataclass(frozen=True)
class DirectBeamEstimate:
    """The place of the direct beam in the mean pattern."""

    place: str | None  # `centre` or `corner`; None if both are about as likely
    # (row, column) of the centre of mass of the mean pattern, in the file's own frames.
    pixel: tuple[float, float]
    sides: tuple[int, ...]  # rows and columns of the frames

    @property
    def nearest(self) -> tuple[int, int]:
        """The nearest pixel, in a frame that continues periodically."""
        row, column = (round(place) % side for place, side in zip(self.pixel, self.sides, strict=True))
        return row, column

    @property
    def reason(self) -> str:
        """For messages."""
        row, column = self.nearest
        return f"the mean pattern is centred at [{row}, {column}]"


def without_stuck_pixels(frames: StoredFrames, log: Callable[[str], None]) -> NDArray[np.bool_] | None:
    """The mask [rows, columns] of valid pixels without those that hold a detector's mark in all frames; logged."""
    mask = frames.mask
    for mark, stuck in _stuck_marks(frames).items():
        log(
            f"bad pixels: {np.count_nonzero(stuck)} that hold {mark} in all frames, a detector's mark of "
            f"{mark.bit_length() + 7 & ~7} bits: masked"
        )
        mask = ~stuck if mask is None else mask & ~stuck
    return mask


def _stuck_marks(frames: StoredFrames) -> dict[int, NDArray[np.bool_]]:
    """By the mark, of 16 bits, or of 8 bits in their own type: pixels that hold it in every frame of a sample."""
    n, height, width = frames.stack.shape
    kind, size = frames.stack.dtype.kind, frames.stack.dtype.itemsize
    # The largest value of the type itself is never a count, see `valid_values`.
    narrow = {("u", 1): _MARKS_8, ("u", 2): _MARKS_16[1:2]}
    marks = _MARKS_16 if kind == "f" or size > 2 else narrow.get((kind, size), ())
    if n < 3 or kind not in "iuf" or not marks:
        return {}
    stuck = {mark: np.ones((height, width), dtype=bool) for mark in marks}
    for index in sample_of(n, _SAMPLE).tolist():
        frame = frames.frame(index)
        valid = valid_values(frame, frames.where) & ~np.isin(frame, marks)
        brightest = frame[valid].max(initial=0)
        stuck = {
            mark: both
            for mark, pixels in stuck.items()
            if brightest <= mark and (both := pixels & (frame == mark)).any()
        }
    return stuck


def estimate_direct_beam(frames: StoredFrames) -> DirectBeamEstimate:
    """Locate the direct beam in the mean of a sample of the frames.

    The mean leaves out the brightest value of each pixel, which may be a cosmic ray, and limits pixels that are much
    brighter than all of their neighbours. Its centre is taken on a torus, so that a beam in the corner is as compact
    as one in the centre; a gap, a beam stop or the donut of a zone plate does not move it.
    """
    image, bins = _binned(_mean_pattern(frames))
    amplitude = np.sqrt(image)
    amplitude = np.maximum(amplitude - np.median(amplitude), 0)
    centre, concentration = zip(*(_on_torus(amplitude.sum(axis=1 - axis)) for axis in (0, 1)), strict=True)
    sides = np.array(image.shape)
    # 0 in the corner, 1 in the centre.
    nearness = 1 - np.abs(np.array(centre) - sides // 2) / (sides / 2)
    place: str | None = None
    if min(concentration) > _CONCENTRATION and nearness.min() > _CENTRE:
        place = "centre"
    elif min(concentration) > _CONCENTRATION and nearness.max() < _CORNER:
        place = "corner"
    else:
        # A donut as large as the frame has no centre of mass, but it is round about the beam.
        in_centre, in_corner = (_roundness(amplitude, start) for start in (sides // 2, 0 * sides))
        if abs(in_centre - in_corner) > _ROUNDER:
            place = "centre" if in_centre > in_corner else "corner"
            centre = tuple(sides // 2 if place == "centre" else 0 * sides)
    row, column = (_centre_of_mass(image, centre) % sides) * bins + (bins - 1) / 2 + frames.first_pixel
    return DirectBeamEstimate(place, (row, column), frames.stack.shape[1:])


def _mean_pattern(frames: StoredFrames) -> NDArray[np.float64]:
    """Mean of a sample, without the brightest value of each pixel, hot pixels limited."""
    sample, trusted = sample_of(frames.stack.shape[0], _SAMPLE).tolist(), frames.trusted
    total, brightest = np.zeros(trusted.shape), np.zeros(trusted.shape)
    for index in sample:
        frame = frames.frame(index)
        frame = np.where(valid_values(frame, frames.where), frame, frame.dtype.type(0))
        total += frame
        np.maximum(brightest, frame, out=brightest)
    image = (total - brightest if len(sample) > 2 else total) * trusted
    limited = np.minimum(image, _HOT * maximum_filter(image, footprint=_NEIGHBOURS, mode="wrap"))
    return limited if limited.any() else image


def _binned(image: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """The image in bins, so that no side has many more than `_LARGEST_SIDE` of them, and the side of a bin."""
    bins = max(1, max(image.shape) // _LARGEST_SIDE)
    rows, columns = (side // bins for side in image.shape)
    if bins == 1 or not rows or not columns:
        return image, 1
    return image[: rows * bins, : columns * bins].reshape(rows, bins, columns, bins).sum(axis=(1, 3)), bins


def _on_torus(profile: NDArray[np.float64]) -> tuple[float, float]:
    """Circular mean of a profile, in pixels, and how concentrated the profile is (0 to 1)."""
    n, total = len(profile), float(profile.sum())
    if total == 0:
        return n // 2, 0.0
    moment = np.sum(profile * np.exp(2j * np.pi * np.arange(n) / n)) / total
    return float(np.angle(moment) / (2 * np.pi) * n % n), float(abs(moment))


def _roundness(image: NDArray[np.float64], centre: NDArray[np.intp]) -> float:
    """Share of a periodic image's variance that depends on the distance from `centre` alone."""
    rows, columns = (
        (np.arange(side) - middle + side // 2) % side - side // 2
        for side, middle in zip(image.shape, centre, strict=True)
    )
    radius = np.rint(np.hypot(rows[:, None], columns)).astype(int).ravel()
    mean = np.bincount(radius, image.ravel()) / np.maximum(np.bincount(radius), 1)
    variance = float(image.var())
    return float(mean[radius].var()) / variance if variance else 0.0


def _centre_of_mass(image: NDArray[np.float64], start: tuple[float, ...]) -> NDArray[np.float64]:
    """Centre of mass of a periodic image, cut opposite to an estimate of it, iterated."""
    image = np.maximum(image - np.median(image), 0)
    centre = np.array(start)
    sides = np.array(image.shape)
    for _ in range(5):
        offsets = [
            (np.arange(side) - middle + side / 2) % side - side / 2
            for side, middle in zip(sides, centre, strict=True)
        ]
        total = image.sum()
        if total == 0:
            break
        shift = np.array([image.sum(axis=1) @ offsets[0], image.sum(axis=0) @ offsets[1]]) / total
        centre = (centre + shift) % sides
    return centre
