"""Declared region: the pixels of a stitched object that are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.reconstruction.stitching import patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import illumination, window_corners

__all__ = [
    "Rectangle",
    "RegionRecord",
    "RegionRule",
    "accumulated_illumination",
    "bounding_rectangle",
    "declare_region",
    "largest_rectangle",
]


@dataclass(frozen=True)
class RegionRule:
    """Rule for the pixels that are compared.

    * `fraction`: a pixel is compared if its accumulated illumination is at least this fraction of the typical value,
      which is the photon-weighted median: half of the photons fell on pixels with at least as much. (The plain median
      would follow the dim border of a small scan, the maximum a position that was measured twice.)
    * `box`: (top, bottom, left, right) in pixels of `Scan.positions`, without bottom and right; no limit if None.
    """

    fraction: float = 0.1
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise InputError(f"region: fraction is {self.fraction:g}, expected at least 0 and less than 1")
        if self.box is not None and not (self.box[0] < self.box[1] and self.box[2] < self.box[3]):
            raise InputError(
                f"region: box is {self.box}, expected (top, bottom, left, right) in growing order"
            )


@dataclass(frozen=True)
class Rectangle:
    """Rows top to bottom and columns left to right of an array, without bottom and right."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return (self.bottom - self.top, self.right - self.left)

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right)."""
        return (self.top, self.bottom, self.left, self.right)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array [rows, columns]."""
        return (slice(self.top, self.bottom), slice(self.left, self.right))


class RegionRecord(BaseModel):
    """The region that was used, as recorded in `metrics.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str = Field(description="in words")
    fraction: float
    pixels: int = Field(description="number of pixels in pixelwise metrics")
    rectangle_px: tuple[int, int, int, int] = Field(
        description="(top, bottom, left, right) on the canvas, for SSIM, MS-SSIM, FRC and PSD"
    )
    canvas_origin_px: tuple[float, float]


def accumulated_illumination(
    scan: Scan, shape: tuple[int, int], origin: tuple[float, float]
) -> NDArray[np.float64]:
    """Accumulated illumination [rows, columns] of a scan on a canvas, at positions rounded to whole pixels.

    Sum over the windows of ``sum_modes |P|^2`` (photons per pixel at unit transmission). If the probe is unknown, a
    Hann window of the size of a pattern is used instead.
    """
    density = patch_weight("window", scan.size) if scan.probe is None else illumination(scan.probe)
    total = np.zeros(shape)
    corners = np.rint(window_corners(scan.positions, scan.size) - np.asarray(origin)).astype(int)
    for row, column in corners:
        low = (max(row, 0), max(column, 0))
        target = total[low[0] : row + scan.size, low[1] : column + scan.size]
        target += density[
            low[0] - row : low[0] - row + target.shape[0], low[1] - column : low[1] - column + target.shape[1]
        ]
    return total


def declare_region(
    scan: Scan, covered: NDArray[np.bool_], origin: tuple[float, float], rule: RegionRule | None = None
) -> tuple[NDArray[np.bool_], RegionRecord]:
    """Region of a scan on a canvas [rows, columns], and its record.

    Raises InputError if the region is empty.

    * `covered`: bool [rows, columns], pixels that every stitched object and the reference cover.
    * `origin`: (row, column) of the canvas pixel [0, 0] in the coordinates of `Scan.positions`.
    """
    rule = rule or RegionRule()
    light = accumulated_illumination(scan, (covered.shape[0], covered.shape[1]), origin)
    region = covered & (light > 0) & (light >= rule.fraction * _typical(light))
    words = (
        "pixels that every stitched object and the reference cover, and whose accumulated "
        f"{'illumination' if scan.probe is not None else 'Hann window (the probe is unknown)'} is at least "
        f"{rule.fraction:g} of its photon-weighted median"
    )
    if rule.box is not None:
        top, bottom, left, right = rule.box
        rows = np.arange(covered.shape[0]) + origin[0]
        columns = np.arange(covered.shape[1]) + origin[1]
        region &= ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
        words += f", inside rows {top:g} to {bottom:g} and columns {left:g} to {right:g}"
    if not region.any():
        raise InputError(
            f"{scan.name}: the region to compare holds no pixel, expected a reference that overlaps with the scan"
        )
    record = RegionRecord(
        rule=words,
        fraction=rule.fraction,
        pixels=int(region.sum()),
        rectangle_px=largest_rectangle(region).corners,
        canvas_origin_px=origin,
    )
    return region, record


def _typical(light: NDArray[np.float64]) -> float:
    """The value for which half of the total lies on pixels of at least that value."""
    descending = np.sort(light, axis=None)[::-1]
    total = np.cumsum(descending)
    return float(descending[np.searchsorted(total, total[-1] / 2)])


def bounding_rectangle(region: NDArray[np.bool_]) -> Rectangle:
    """The smallest axis-aligned rectangle that contains the region; empty if the region is."""
    from scipy.ndimage import find_objects

    if not region.any():
        return Rectangle(0, 0, 0, 0)
    ((rows, columns),) = find_objects(region.astype(np.uint8))
    return Rectangle(rows.start, rows.stop, columns.start, columns.stop)


def largest_rectangle(region: NDArray[np.bool_]) -> Rectangle:
    """The largest axis-aligned rectangle inside the region, for SSIM, MS-SSIM, FRC and PSD.

    Computed row by row as the largest rectangle under the histogram of column heights. Of equal rectangles the
    uppermost, then leftmost, is returned; the rectangle is empty if the region is.
    """
    heights = np.zeros(region.shape[1], dtype=int)
    best, area = Rectangle(0, 0, 0, 0), 0
    for row, inside in enumerate(region):
        heights = np.where(inside, heights + 1, 0)
        stack: list[tuple[int, int]] = []  # (first column, height) of growing height
        for column, height in enumerate([*heights.tolist(), 0]):
            first = column
            while stack and stack[-1][1] >= height:
                first, tall = stack.pop()
                if tall * (column - first) > area:
                    area = tall * (column - first)
                    best = Rectangle(row + 1 - tall, row + 1, first, column)
            if height:
                stack.append((first, height))
    return best
