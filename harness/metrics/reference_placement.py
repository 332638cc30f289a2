"""Placement of a reference on the pixels of a stitched object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.metrics.alignment import shift_image
from ptychonnx.runtime.scan import Reference

__all__ = ["ReferencePlacement", "reference_on_canvas"]

# Below a hundredth of a pixel, interpolation would blur more than the offset does.
_NEGLIGIBLE_PX = 0.01
# Next to the border, interpolation uses repeated pixels.
_INTERPOLATION_MARGIN = 2


class ReferencePlacement(BaseModel):
    """Position of the reference on the canvas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offset_px: tuple[float, float] = Field(
        description="(row, column) of pixel [0, 0] of the reference on the canvas"
    )
    interpolated_px: tuple[float, float] = Field(
        description="fraction of a pixel by which it was interpolated; (0, 0): cut at whole pixels"
    )


def reference_on_canvas(
    reference: Reference, shape: tuple[int, int], origin: tuple[float, float]
) -> tuple[NDArray[np.complex64], NDArray[np.bool_], ReferencePlacement]:
    """Cut a reference to a canvas of `shape` whose pixel [0, 0] lies at `origin` in the coordinates of the scan.

    If the two grids differ by a fraction of a pixel, the reference is interpolated (bicubic).

    Returns (object complex64 [rows, columns], 0 where unknown; known bool [rows, columns]; where it was placed).
    """
    offset = np.subtract(reference.origin, origin)
    whole = np.rint(offset).astype(int)
    fraction = np.where(np.abs(offset - whole) < _NEGLIGIBLE_PX, 0.0, offset - whole)
    image, valid = reference.object, np.ones(reference.object.shape, dtype=bool)
    if fraction.any():
        image = shift_image(image, (float(fraction[0]), float(fraction[1]))).astype(np.complex64)
        valid[:_INTERPOLATION_MARGIN] = valid[-_INTERPOLATION_MARGIN:] = False
        valid[:, :_INTERPOLATION_MARGIN] = valid[:, -_INTERPOLATION_MARGIN:] = False
    canvas, known = np.zeros(shape, dtype=np.complex64), np.zeros(shape, dtype=bool)
    low = np.maximum(whole, 0)
    high = np.minimum(whole + image.shape, shape)
    if (low < high).all():
        target = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        source = tuple(slice(*ends) for ends in zip(low - whole, high - whole, strict=True))
        known[target] = valid[source]
        canvas[target] = np.where(valid[source], image[source], 0)
    placement = ReferencePlacement(
        offset_px=(float(offset[0]), float(offset[1])),
        interpolated_px=(float(fraction[0]), float(fraction[1])),
    )
    return canvas, known, placement
