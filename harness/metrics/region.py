"""The declared region: which pixels of a stitched object are compared."""

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
    "declare_region",
    "largest_rectangle",
]


@dataclass(frozen=True)
class RegionRule:
    """Which pixels count.

    Attributes
    ----------
    fraction
        A pixel counts if its accumulated illumination is at least this fraction of the typical one, which is
        the photon-weighted median: half of the photons fell on pixels that got at least as much. (The plain
        median would follow the dim border of a small scan, the maximum a position that was measured twice.)
    box
        (top, bottom, left, right) in pixels of `Scan.positions`, bottom and right not included; all if None.
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
    """Rows top..bottom and columns left..right of an array, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return (self.bottom - self.top, self.right - self.left)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array [rows, columns]."""
        return (slice(self.top, self.bottom), slice(self.left, self.right))


class RegionRecord(BaseModel):
    """The region as it was used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str = Field(description="in words")
    fraction: float
    pixels: int = Field(description="pixels that count in pixelwise metrics")
    rectangle_px: tuple[int, int, int, int] = Field(
        description="(top, bottom, left, right) on the canvas, for SSIM, MS-SSIM, FRC and PSD"
    )
    canvas_origin_px: tuple[float, float]


def accumulated_illumination(
    scan: Scan, shape: tuple[int, int], origin: tuple[float, float]
) -> NDArray[np.float64]:
    """Illumination [rows, columns] that a scan left on a canvas, at positions rounded to whole pixels.

    Sum over the windows of ``sum_modes |P|^2`` (in photons per pixel and unit transmission); without a known
    probe a Hann window of the size of a pattern stands in for it.
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
    """The region of a scan on a canvas, and how it was found.

    Parameters
    ----------
    covered
        bool [rows, columns], pixels that every stitched object to be compared has (and the reference).
    origin
        (row, column) of the canvas pixel [0, 0] in the coordinates of `Scan.positions`.

    Raises
    ------
    InputError
        If no pixel is left.
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
            f"{scan.name}: the region to compare holds no pixel, expected one that the reference covers"
        )
    rectangle = largest_rectangle(region)
    record = RegionRecord(
        rule=words,
        fraction=rule.fraction,
        pixels=int(region.sum()),
        rectangle_px=(rectangle.top, rectangle.bottom, rectangle.left, rectangle.right),
        canvas_origin_px=origin,
    )
    return region, record


def _typical(light: NDArray[np.float64]) -> float:
    """The level such that half of the total lies on pixels of at least that level."""
    falling = np.sort(light, axis=None)[::-1]
    total = np.cumsum(falling)
    return float(falling[np.searchsorted(total, total[-1] / 2)])


def largest_rectangle(region: NDArray[np.bool_]) -> Rectangle:
    """The axis-aligned rectangle of most pixels that lies wholly inside the region.

    SSIM, MS-SSIM and FRC need a neighbourhood or a Fourier transform, hence a full rectangle. Found row by
    row as the largest rectangle under a histogram of the heights of the columns of True above each pixel; the
    uppermost, then leftmost, one of equals. Empty if the region is.
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
