"""Bringing a reference onto the pixels of a stitched object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.metrics.alignment import shift_image
from ptychonnx.runtime.scan import Reference

__all__ = ["Placement", "reference_on_canvas"]

# Below a hundredth of a pixel interpolation would blur more than the offset does.
_NEGLIGIBLE_PX = 0.01
# A cubic spline next to the border leans on repeated pixels.
_SPLINE_MARGIN = 2


class Placement(BaseModel):
    """Where the reference lies on the canvas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offset_px: tuple[float, float] = Field(description="(row, column) of its pixel [0, 0] on the canvas")
    interpolated_px: tuple[float, float] = Field(
        description="the fraction of a pixel by which it was interpolated; (0, 0): cut at whole pixels"
    )


def reference_on_canvas(
    reference: Reference, shape: tuple[int, int], origin: tuple[float, float]
) -> tuple[NDArray[np.complex64], NDArray[np.bool_], Placement]:
    """Cut a reference to a canvas of `shape` whose pixel [0, 0] lies at `origin` in the coordinates of the
    scan.

    If the two grids differ by a fraction of a pixel, the reference is interpolated with cubic splines.

    Returns
    -------
    (object complex64 [rows, columns], 0 where unknown; known bool [rows, columns]; where it was placed)
    """
    offset = np.subtract(reference.origin, origin)
    whole = np.rint(offset).astype(int)
    fraction = np.where(np.abs(offset - whole) < _NEGLIGIBLE_PX, 0.0, offset - whole)
    image, trusted = reference.object, np.ones(reference.object.shape, dtype=bool)
    if fraction.any():
        image = shift_image(image, (float(fraction[0]), float(fraction[1]))).astype(np.complex64)
        trusted[:_SPLINE_MARGIN] = trusted[-_SPLINE_MARGIN:] = False
        trusted[:, :_SPLINE_MARGIN] = trusted[:, -_SPLINE_MARGIN:] = False
    canvas, known = np.zeros(shape, dtype=np.complex64), np.zeros(shape, dtype=bool)
    low = np.maximum(whole, 0)
    high = np.minimum(whole + image.shape, shape)
    if (low < high).all():
        target = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        source = tuple(slice(*ends) for ends in zip(low - whole, high - whole, strict=True))
        known[target] = trusted[source]
        canvas[target] = np.where(trusted[source], image[source], 0)
    placement = Placement(
        offset_px=(float(offset[0]), float(offset[1])),
        interpolated_px=(float(fraction[0]), float(fraction[1])),
    )
    return canvas, known, placement
