"""Figures of reconstructions next to their reference, and of their errors, as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.report.figure_style import as_png, blank_figure
from ptychonnx.harness.report.quantity_images import OUTSIDE, Panel, QuantityImages, quantity_images

__all__ = ["comparison_figure", "error_figure", "reconstruction_figure"]

_MAX_COLUMNS = 6
_PANEL_INCHES, _GAP_INCHES, _BAR_INCHES, _LINE_INCHES = 2.3, 0.08, 0.85, 0.17
_LONG_NAME = 28


def comparison_figure(
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
    panels: Sequence[Panel],
    title: str = "",
) -> bytes:
    """Amplitude and phase of the reference and of every panel, on the scales of the reference.

    Parameters
    ----------
    reference
        complex [rows, columns].
    region
        bool [rows, columns]; pixels outside are grey, and the image is cropped to its bounding box.
    """
    return _grid(quantity_images(reference, region, panels)[:2], title)


def reconstruction_figure(panels: Sequence[Panel], covered: NDArray[np.bool_], title: str = "") -> bytes:
    """Amplitude and phase of every panel without a reference; each phase is relative to its mean angle."""
    return _grid(quantity_images(None, covered, panels), title)


def error_figure(
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
    panels: Sequence[Panel],
    title: str = "",
) -> bytes:
    """Magnitude of the amplitude error and of the wrapped phase error of every panel, on one scale each."""
    return _grid(quantity_images(reference, region, panels)[2:], title)


def _grid(lines: Sequence[QuantityImages], title: str) -> bytes:
    """One column per object and one line per quantity with a colour bar, in blocks of at most `_MAX_COLUMNS` columns.

    Every length is computed, because a layout engine takes seconds for many panels.
    """
    blocks = math.ceil(len(lines[0].images) / _MAX_COLUMNS)
    across = math.ceil(len(lines[0].images) / blocks)
    rows, breadth = lines[0].images[0].shape
    panel = _PANEL_INCHES * min(max(rows / breadth, 0.4), 2.0)
    heads = [_LINE_INCHES * (2.4 if number == 0 else 1.4) for number in range(len(lines))]
    width = _GAP_INCHES + across * (_PANEL_INCHES + _GAP_INCHES) + _BAR_INCHES
    top = 1.8 * _LINE_INCHES if title else 0.0
    height = top + blocks * (sum(heads) + len(lines) * (panel + _GAP_INCHES))
    figure = blank_figure(width, height)

    def place(left: float, above: float, wide: float) -> Any:
        """Axes whose upper left corner lies at (left, above) inches from that of the figure."""
        return figure.add_axes((left / width, 1 - (above + panel) / height, wide / width, panel / height))

    if title:
        figure.text(0.5, 1 - 0.3 * top / height, title, ha="center", va="top", fontsize=11)
    above = top
    for block in range(blocks):
        chosen = range(block * across, min((block + 1) * across, len(lines[0].images)))
        for number, quantity in enumerate(lines):
            above += heads[number]
            left = _GAP_INCHES
            for index in chosen:
                name, words = quantity.titles[index]
                axes = place(left, above, _PANEL_INCHES)
                drawn = axes.imshow(
                    quantity.images[index],
                    cmap=_colour_map(quantity.colours),
                    vmin=quantity.limits[0],
                    vmax=quantity.limits[1],
                    interpolation="nearest",
                )
                axes.set_axis_off()
                caption = words or " "
                # A long name must not overlap with its neighbour.
                small = 9 if len(name) <= _LONG_NAME else 9 * _LONG_NAME / len(name)
                axes.set_title(f"{name}\n{caption}" if number == 0 else caption, fontsize=small, pad=4)
                left += _PANEL_INCHES + _GAP_INCHES
            bar = figure.colorbar(drawn, cax=place(left, above, 0.12))
            bar.set_label(quantity.name, fontsize=9)
            bar.ax.tick_params(labelsize=8)
            above += panel + _GAP_INCHES
    return as_png(figure)


def _colour_map(name: str) -> Any:
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=OUTSIDE)
