"""Images of the page: PNG files with one pixel per pixel of the object."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.report.quantity_images import QuantityImages

__all__ = ["LARGEST_SIDE", "ImageStrip", "PageImage", "image_strip"]

# Larger images are averaged over blocks of pixels, so that a page with many rows still opens.
LARGEST_SIDE = 1024
_COLOURS, _STOPS = 255, 16


@dataclass(frozen=True)
class PageImage:
    """One image; `source` is a data URI."""

    title: str
    caption: str
    source: str


@dataclass(frozen=True)
class ImageStrip:
    """Images of one quantity on one scale.

    * `gradient`, `limits`: colour scale as a CSS list of colours, and the values at its ends.
    * `rows`, `columns`: size in pixels of the object.
    * `block`: pixels of the object, along each axis, that are averaged into one pixel of the image.
    """

    name: str
    gradient: str
    limits: tuple[float, float]
    images: tuple[PageImage, ...]
    rows: int
    columns: int
    block: int


def image_strip(quantity: QuantityImages) -> ImageStrip:
    """The images of a quantity as PNG data URIs."""
    rows, columns = quantity.images[0].shape
    block = -(-max(rows, columns) // LARGEST_SIDE)
    palette = _palette(quantity.colours, _COLOURS)
    images = tuple(
        PageImage(title, caption, _data_uri(_averaged(image, block), palette, quantity.limits))
        for (title, caption), image in zip(quantity.titles, quantity.images, strict=True)
    )
    gradient = ", ".join(f"rgb{tuple(map(int, stop))}" for stop in _palette(quantity.colours, _STOPS))
    return ImageStrip(quantity.name, gradient, quantity.limits, images, rows, columns, block)


def _palette(colours: str, count: int) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    return (255 * colormaps[colours](np.linspace(0, 1, count))[:, :3]).round().astype(np.uint8)


def _averaged(image: NDArray[np.floating], block: int) -> NDArray[np.floating]:
    """Means over blocks of pixels, ignoring NaN; NaN where a block holds nothing else."""
    if block == 1:
        return image
    from skimage.measure import block_reduce

    inside = np.isfinite(image)
    sums = block_reduce(np.where(inside, image, 0.0), block, np.sum)
    counts = block_reduce(inside.astype(np.float64), block, np.sum)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _data_uri(image: NDArray[np.floating], palette: NDArray[np.uint8], ends: tuple[float, float]) -> str:
    """PNG with a palette, which is a third of the size of one with three channels."""
    from PIL import Image

    low, high = ends
    level = np.clip(np.round((np.nan_to_num(image) - low) / (high - low) * (_COLOURS - 1)), 0, _COLOURS - 1)
    index = np.where(np.isfinite(image), level, _COLOURS).astype(np.uint8)
    picture = Image.fromarray(index).convert("P")
    picture.putpalette([*palette.ravel().tolist(), 0, 0, 0])
    stream = io.BytesIO()
    # Pixels outside are transparent: the page, light or dark, chooses their grey.
    picture.save(stream, format="PNG", transparency=_COLOURS)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
