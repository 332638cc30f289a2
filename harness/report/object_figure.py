"""Figure of objects next to each other: reconstructions with their reference, or errors, as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ptychonnx.harness.report.figure_style import as_png, blank_figure
from ptychonnx.harness.report.quantity_images import OUTSIDE, QuantityImages

__all__ = ["object_figure"]

_MAX_COLUMNS = 6
_PANEL_INCHES, _GAP_INCHES, _BAR_INCHES, _LINE_INCHES = 2.3, 0.08, 0.85, 0.17
_LONG_NAME = 28


def object_figure(quantities: Sequence[QuantityImages], title: str = "") -> bytes:
    """PNG with one column per object and one line per quantity, each with a colour bar.

    Blocks of at most `_MAX_COLUMNS` columns follow each other. Every length is computed, because a layout engine takes
    seconds for many panels.
    """
    blocks = math.ceil(len(quantities[0].images) / _MAX_COLUMNS)
    across = math.ceil(len(quantities[0].images) / blocks)
    rows, breadth = quantities[0].images[0].shape
    panel = _PANEL_INCHES * min(max(rows / breadth, 0.4), 2.0)
    heads = [_LINE_INCHES * (2.4 if number == 0 else 1.4) for number in range(len(quantities))]
    width = _GAP_INCHES + across * (_PANEL_INCHES + _GAP_INCHES) + _BAR_INCHES
    top = 1.8 * _LINE_INCHES if title else 0.0
    height = top + blocks * (sum(heads) + len(quantities) * (panel + _GAP_INCHES))
    figure = blank_figure(width, height)

    def place(left: float, above: float, wide: float) -> Any:
        """Axes whose upper left corner lies at (left, above) inches from that of the figure."""
        return figure.add_axes((left / width, 1 - (above + panel) / height, wide / width, panel / height))

    if title:
        figure.text(0.5, 1 - 0.3 * top / height, title, ha="center", va="top", fontsize=11)
    above = top
    for block in range(blocks):
        chosen = range(block * across, min((block + 1) * across, len(quantities[0].images)))
        for number, quantity in enumerate(quantities):
            above += heads[number]
            left = _GAP_INCHES
            for index in chosen:
                name, caption = quantity.titles[index]
                axes = place(left, above, _PANEL_INCHES)
                drawn = axes.imshow(
                    quantity.images[index],
                    cmap=_colour_map(quantity.colours),
                    vmin=quantity.limits[0],
                    vmax=quantity.limits[1],
                    interpolation="nearest",
                )
                axes.set_axis_off()
                caption = caption or " "
                # A long name must not overlap with its neighbour.
                small = 9 if len(name) <= _LONG_NAME else 9 * _LONG_NAME / len(name)
                axes.set_title(f"{name}\n{caption}" if number == 0 else caption, fontsize=small, pad=4, y=1.0)
                left += _PANEL_INCHES + _GAP_INCHES
            bar = figure.colorbar(drawn, cax=place(left, above, 0.12))
            bar.set_label(quantity.name, fontsize=9)
            bar.ax.tick_params(labelsize=8)
            above += panel + _GAP_INCHES
    return as_png(figure)


def _colour_map(name: str) -> Any:
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=OUTSIDE)
