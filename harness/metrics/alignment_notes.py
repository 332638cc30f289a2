"""Alignments that were not applied, but would change what a comparison says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.metrics.alignment import apply_ramp, fit_factor, fit_ramp, fit_shift, shift_image
from ptychonnx.harness.metrics.region import largest_rectangle
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, orient_image

__all__ = ["alignment_note"]

# An alignment is worth a note if the error is more than the first and falls below the second times itself.
_SMALL_ERROR = 0.02
_FALL = 0.6

Image = NDArray[np.complexfloating]


def alignment_note(reconstruction: Image, reference: Image, region: NDArray[np.bool_]) -> str | None:
    """One sentence about the alignment that would lower the error most, or None if none would lower it much.

    Tried are a phase ramp, a shift, the seven other orientations, and the complex conjugate of each orientation. Each
    is judged by the root mean square error of the complex values after the best complex factor, relative to the
    reference, on the largest rectangle in the region.

    Parameters
    ----------
    reconstruction, reference
        complex [rows, columns], finite in the region.
    region
        bool [rows, columns].
    """
    rectangle = largest_rectangle(region).slices
    image, fixed = reconstruction[rectangle], reference[rectangle]
    if not (np.ptp(np.abs(image)) > 0 and np.ptp(np.abs(fixed)) > 0):
        return None
    before = _error(image, fixed)
    if before <= _SMALL_ERROR:
        return None
    errors = {text: _error(candidate, fixed) for text, candidate in _candidates(image, fixed)}
    text = min(errors, key=errors.__getitem__)
    if errors[text] > _FALL * before:
        return None
    return (
        f"{text} would lower the error from {before:.3g} to {errors[text]:.3g} of the reference: not applied"
    )


def _error(image: Image, reference: Image) -> float:
    whole = np.ones(reference.shape, bool)
    difference = fit_factor(image, reference, whole) * image - reference
    return float(np.linalg.norm(difference) / np.linalg.norm(reference))


def _candidates(image: Image, reference: Image) -> Iterator[tuple[str, Image]]:
    whole = np.ones(reference.shape, bool)
    ramp = fit_ramp(image, reference, whole)
    extent = [slope * side for slope, side in zip(ramp, image.shape, strict=True)]
    yield (
        f"removing a phase ramp of ({extent[0]:.2g}, {extent[1]:.2g}) rad over rows and columns",
        apply_ramp(image.astype(np.complex128), ramp),
    )
    shift = fit_shift(image, reference, whole)
    if max(map(abs, shift)) < min(image.shape) / 2:
        yield (f"a shift by ({shift[0]:.2f}, {shift[1]:.2f}) pixels", shift_image(image, shift))
    for orientation in ORIENTATIONS:
        oriented = orient_image(image, orientation)
        if oriented.shape != reference.shape:
            continue
        if orientation != "identity":
            yield f"the orientation {orientation}", oriented
        also = "" if orientation == "identity" else f" in the orientation {orientation}"
        yield f"the complex conjugate{also}", oriented.conj()
