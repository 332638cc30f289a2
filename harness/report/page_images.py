"""The images of the page: one pixel of the object is one pixel of a PNG, coloured on a scale that rows share."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.report.quantity_images import Quantity

__all__ = ["LARGEST_SIDE", "Scale", "Strip", "View", "strip_of"]

# Larger images are averaged over blocks of pixels, or a page of many rows would not open.
LARGEST_SIDE = 1024
_COLOURS, _STOPS = 255, 16


@dataclass(frozen=True)
class Scale:
    """Colours of a strip: `gradient` is a CSS list of colours from `low` to `high`."""

    gradient: str
    low: float
    high: float


@dataclass(frozen=True)
class View:
    """One image, `source` being a data URI."""

    title: str
    caption: str
    source: str


@dataclass(frozen=True)
class Strip:
    """One quantity of all rows on one scale; `rows` and `columns` of object pixels, `block` averaged into one."""

    name: str
    scale: Scale
    views: tuple[View, ...]
    rows: int
    columns: int
    block: int


def strip_of(quantity: Quantity) -> Strip:
    """The images of a quantity as the page holds them."""
    rows, columns = quantity.images[0].shape
    block = -(-max(rows, columns) // LARGEST_SIDE)
    palette = _palette(quantity.colours, _COLOURS)
    views = tuple(
        View(title, words, _data_uri(_averaged(image, block), palette, quantity.limits))
        for (title, words), image in zip(quantity.titles, quantity.images, strict=True)
    )
    gradient = ", ".join(f"rgb{tuple(map(int, stop))}" for stop in _palette(quantity.colours, _STOPS))
    return Strip(quantity.name, Scale(gradient, *quantity.limits), views, rows, columns, block)


def _palette(colours: str, count: int) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    return (255 * colormaps[colours](np.linspace(0, 1, count))[:, :3]).round().astype(np.uint8)


def _averaged(image: NDArray[np.floating], block: int) -> NDArray[np.floating]:
    """Means over blocks of pixels; NaN, which is outside, counts only where there is nothing else."""
    if block == 1:
        return image
    from skimage.measure import block_reduce

    inside = np.isfinite(image)
    sums = block_reduce(np.where(inside, image, 0.0), block, np.sum)
    counts = block_reduce(inside.astype(np.float64), block, np.sum)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _data_uri(image: NDArray[np.floating], palette: NDArray[np.uint8], ends: tuple[float, float]) -> str:
    """A PNG with a palette, a third of the size of one with three channels."""
    from PIL import Image

    low, high = ends
    level = np.clip(np.round((np.nan_to_num(image) - low) / (high - low) * (_COLOURS - 1)), 0, _COLOURS - 1)
    index = np.where(np.isfinite(image), level, _COLOURS).astype(np.uint8)
    picture = Image.fromarray(index).convert("P")
    picture.putpalette([*palette.ravel().tolist(), 0, 0, 0])
    stream = io.BytesIO()
    # What lies outside is transparent: its grey is a matter of the page, which may be light or dark.
    picture.save(stream, format="PNG", transparency=_COLOURS)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
