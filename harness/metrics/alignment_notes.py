"""Alignments that were not applied, but would change what a comparison says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.metrics.alignment import apply_ramp, fit_factor, fit_ramp, fit_shift, shift_image
from ptychonnx.harness.metrics.periodicity import periods_of
from ptychonnx.harness.metrics.region import largest_rectangle
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, orient_image

__all__ = ["alignment_note"]

# An alignment is worth a note if the error is more than the first and falls below the second times itself.
_SMALL_ERROR = 0.02
_FALL = 0.6

Image = NDArray[np.complexfloating]


def alignment_note(reconstruction: Image, reference: Image, region: NDArray[np.bool_]) -> str | None:
    """One sentence about the alignment that would lower the error most, or None if none would lower it much.

    Tried are a phase ramp, a shift, the seven other orientations, and the complex conjugate of each orientation; and a
    shift by the period of a reference that repeats itself, where correlation has another peak. Each is judged by the
    root mean square error of the complex values after the best complex factor, relative to the reference, on the
    largest rectangle in the region; a shift on the part that it does not move out of this rectangle.

    * `reconstruction`, `reference`: complex [rows, columns], finite in the region.
    * `region`: bool [rows, columns].
    """
    rectangle = largest_rectangle(region).slices
    # The squares of large values exceed single precision.
    image, fixed = (whole[rectangle].astype(np.complex128) for whole in (reconstruction, reference))
    if not (np.ptp(np.abs(image)) > 0 and np.ptp(np.abs(fixed)) > 0):
        return None
    before = _error(image, fixed)
    if not before > _SMALL_ERROR:
        return None
    whole = (slice(None), slice(None))
    errors = {}
    for text, candidate, part in _candidates(image, fixed):
        unmoved = before if part == whole else _error(image[part], fixed[part])
        if unmoved > _SMALL_ERROR:
            errors[text] = (_error(candidate[part], fixed[part]), unmoved)
    if not errors:
        return None
    text = min(errors, key=lambda text: errors[text][0] / errors[text][1])
    after, before = errors[text]
    if after > _FALL * before:
        return None
    return f"{text} would lower the error from {before:.3g} to {after:.3g} of the reference: not applied"


def _error(image: Image, reference: Image) -> float:
    whole = np.ones(reference.shape, bool)
    difference = fit_factor(image, reference, whole) * image - reference
    return float(np.linalg.norm(difference) / np.linalg.norm(reference))


def _candidates(image: Image, reference: Image) -> Iterator[tuple[str, Image, tuple[slice, slice]]]:
    """Each alignment in words, the aligned image, and the part of it that is judged."""
    whole, everywhere = np.ones(reference.shape, bool), (slice(None), slice(None))
    ramp = fit_ramp(image, reference, whole)
    extent = [slope * side for slope, side in zip(ramp, image.shape, strict=True)]
    yield (
        f"removing a phase ramp of ({extent[0]:.2g}, {extent[1]:.2g}) rad over rows and columns",
        apply_ramp(image.astype(np.complex128), ramp),
        everywhere,
    )
    shift = fit_shift(image, reference, whole)
    yield from _shifted(image, shift, "")
    for period in periods_of(reference):
        also = f", of which ({period[0]}, {period[1]}) are a period of the reference"
        for sign in (1, -1):
            yield from _shifted(image, (shift[0] + sign * period[0], shift[1] + sign * period[1]), also)
    for orientation in ORIENTATIONS:
        oriented = orient_image(image, orientation)
        if oriented.shape != reference.shape:
            continue
        if orientation != "identity":
            yield f"the orientation {orientation}", oriented, everywhere
        also = "" if orientation == "identity" else f" in the orientation {orientation}"
        yield f"the complex conjugate{also}", oriented.conj(), everywhere


def _shifted(
    image: Image, shift: tuple[float, float], also: str
) -> Iterator[tuple[str, Image, tuple[slice, slice]]]:
    """A shift of less than half the image, and the part of it that comes from inside."""
    if max(map(abs, shift)) >= min(image.shape) / 2:
        return
    rows, columns = (
        slice(max(int(np.ceil(distance)), 0), min(int(np.floor(distance)), 0) + length)
        for distance, length in zip(shift, image.shape, strict=True)
    )
    text = f"a shift by ({shift[0]:.2f}, {shift[1]:.2f}) pixels{also}"
    yield text, shift_image(image, shift), (rows, columns)
