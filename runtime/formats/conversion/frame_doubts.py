"""Frames that are read without an error and mean something else: other quantities, bad pixels, a beam that was off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve, grey_closing, maximum_filter

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.stacks import Stack
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.scan.amplitudes import Amplitudes

__all__ = ["frame_doubts"]

_SAMPLE = 16
# Quantities that others are stored as, where their inverse is a whole number.
_INVERSES: dict[str, Callable[[NDArray], NDArray]] = {
    "squares": np.square,
    "exponentials": np.exp,
    "powers of ten": lambda values: np.power(10.0, values),
}
_REMEDIES = {"squares": "is it --quantity amplitude?"}
# Larger numbers are whole by chance, as far as their digits tell.
_LARGEST_WHOLE = 1e3
_LEAST_VALUES = 64
# Counts that a pixel has in all frames only if it is broken.
_CONSTANT, _LEAST_FRAMES = 16, 5
# A pixel that is hot has this many times the counts of its brightest neighbour; one that is dead has pixels with as
# many in a pattern on both sides, up to so many pixels away.
_HOT, _HOT_SIGMA, _DEAD, _REACH = 4.0, 10.0, 20.0, 4
# Neighbours that must be good for a pixel to be called hot.
_KNOWN = 4
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
# Patterns with a smaller part of the usual photons were taken without the beam.
# The usual ones are those of the brighter patterns.
_DIM, _USUAL, _THRESHOLD = 0.02, 0.75, 0.1
# Values of a cube that is looked at from two sides.
_SMALL_CUBE = 2**22


def frame_doubts(frames: StoredFrames, beam: tuple[int, int]) -> list[str]:
    """Lines for the user about a sample of the frames.

    `beam`: (row, column) of the direct beam, which may be a peak of one pixel.
    """
    trusted = frames.trusted
    part, good = trusted.shape, trusted.copy()
    lowest, highest, total = np.full(part, np.inf), np.zeros(part), np.zeros(part)
    photons: dict[int, float] = {}
    whole = dict.fromkeys(_INVERSES, 0)
    for index, frame, valid in frames.sample(_SAMPLE):
        good &= valid
        values = np.where(valid & trusted, frame, frame.dtype.type(0)).astype(np.float64)
        if frames.quantity == "counts" and frame.dtype.kind == "f":
            found = {name: _whole(values, name, frame.dtype) for name in whole}
            whole = {name: whole[name] + times for name, times in found.items() if times is not None}
        counts = np.square(values) if frames.quantity == "amplitude" else values
        np.minimum(lowest, counts, out=lowest)
        np.maximum(highest, counts, out=highest)
        total += counts
        photons[index] = float(counts.sum())
    notes = [
        f"quantity: counts, but the {name} of all values are whole numbers: "
        f"{_REMEDIES.get(name, 'are they logarithms? Counts are needed')}"
        for name, times in whole.items()
        if times >= _LEAST_VALUES
    ]
    if len(photons) >= _LEAST_FRAMES:
        mean = total / len(photons)
        notes += [_bad_pixels(lowest, highest, mean, good, beam, frames.first_pixel), _dim(photons)]
    notes.append(_last_axis(frames.stack))
    return [note for note in notes if note]


def _whole(values: NDArray[np.float64], name: str, dtype: np.dtype) -> int | None:
    """How many values are fractions, if the inverse of every value is a whole number; None if that of one is not."""
    with np.errstate(over="ignore"):
        inverse = _INVERSES[name](values)
    rounding = 8 * float(np.finfo(dtype).eps) * inverse * np.maximum(values, 1)
    told = (values > 0) & (inverse < _LARGEST_WHOLE) & (rounding < 0.05)
    values, inverse, rounding = values[told], inverse[told], rounding[told]
    if (np.abs(inverse - np.rint(inverse)) > rounding + 1e-9).any():
        return None
    return int(np.count_nonzero(values != np.rint(values)))


def _bad_pixels(
    lowest: NDArray[np.float64],
    highest: NDArray[np.float64],
    mean: NDArray[np.float64],
    good: NDArray[np.bool_],
    beam: tuple[int, int],
    first: tuple[int, int],
) -> str:
    constant = good & (lowest == highest) & (lowest >= _CONSTANT)
    # Patterns of nothing, without noise, are all the same.
    if np.count_nonzero(constant) > np.count_nonzero(highest) / 2:
        constant[:] = False
    brightest = maximum_filter(mean, footprint=_NEIGHBOURS, mode="wrap")
    # Among pixels that are masked or were invalid, a good one is not hot.
    known = convolve(good.astype(np.uint8), _NEIGHBOURS.astype(np.uint8), mode="wrap") >= _KNOWN
    hot = good & known & (lowest > _HOT * brightest + _HOT_SIGMA * np.sqrt(brightest + 1))
    rows, columns = (
        np.arange(middle - start - 1, middle - start + 2) % side
        for middle, start, side in zip(beam, first, mean.shape, strict=True)
    )
    hot[np.ix_(rows, columns)] = False
    reach = 2 * _REACH + 1
    trusted = np.where(constant | hot, 0, mean)
    # What lies outside of the frame is dark: a gap has two sides.
    around = np.maximum(*(grey_closing(trusted, size, mode="constant") for size in ((1, reach), (reach, 1))))
    dead = good & (mean == 0) & (around > _DEAD)
    bad = constant | hot | dead
    if not bad.any():
        return ""
    row, column = (np.argwhere(bad)[0] + first).tolist()
    kinds = (
        (constant, "hold the same counts in all patterns looked at"),
        (hot & ~constant, "are far brighter than their neighbours in all of them"),
        (dead, "are 0 among bright ones"),
    )
    text = ", ".join(f"{np.count_nonzero(pixels)} {kind}" for pixels, kind in kinds if pixels.any())
    return f"bad pixels: {text} (first [{row}, {column}]): mask them"


def _dim(photons: dict[int, float]) -> str:
    usual = float(np.quantile(list(photons.values()), _USUAL))
    dim = [index for index, light in photons.items() if 0 < light < _DIM * usual]
    if not dim:
        return ""
    return (
        f"patterns: {len(dim)} of {len(photons)} looked at have less than {_DIM:.0%} of the usual photons (first "
        f"number {dim[0]}): --min-photons {_THRESHOLD * usual:.2g} leaves such patterns out"
    )


def _last_axis(stack: Stack | Amplitudes) -> str:
    """Say so if the patterns of a cube seem to be numbered along its last axis, as MATLAB and old files have them."""
    n, height, width = stack.shape
    if not (n == height == width and n > _LEAST_FRAMES and n**3 <= _SMALL_CUBE):
        return ""
    try:
        cube = np.asarray(stack[slice(0, n), slice(None), slice(None)]).astype(np.float64)
    except (OSError, RuntimeError, KeyError, InputError):
        return ""
    first, last = (_compactness(np.abs(cube).mean(axis=axis)) for axis in (0, 2))
    if not last > 2 * first:
        return ""
    return (
        f"patterns: [{n}, {n}, {n}], whose beam stays in one place along the last axis, not the first: are they [rows, "
        "columns, n]? Expected [n, rows, columns]"
    )


def _compactness(image: NDArray[np.float64]) -> float:
    """Inverse of the number of pixels that hold the intensity."""
    total = float(image.sum())
    return float(np.square(image).sum()) / total**2 if total > 0 else 0.0
