"""Figure of the robustness study: SSIM against the level of each condition, amplitude above and phase below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ptychonnx.harness.report.figure_style import as_png, blank_figure, legend_below, line_style

__all__ = ["robustness_figure"]

Values = Mapping[str, Sequence[float | None]]


def robustness_figure(
    headings: Mapping[str, Sequence[str]], curves: Mapping[tuple[str, str], Values]
) -> bytes:
    """PNG with one column per axis; levels are drawn at equal distances, since they have no common unit.

    Parameters
    ----------
    headings
        Levels of each axis as text, by title of the axis.
    curves
        SSIM at each level by label of the network, None where not defined; by axis and quantity (``amplitude``,
        ``phase``).
    """
    widths = [max(len(levels), 3) for levels in headings.values()]
    figure = blank_figure(2 + 0.5 * sum(widths), 5.6, "constrained")
    grid = figure.subplots(2, len(widths), sharey=True, squeeze=False, width_ratios=widths)
    for column, (axis, levels) in enumerate(headings.items()):
        for axes, quantity in zip(grid[:, column], ("amplitude", "phase"), strict=True):
            for number, (label, values) in enumerate(curves[axis, quantity].items()):
                heights = [np.nan if value is None else value for value in values]
                axes.plot(heights, label=label, marker=".", **line_style(number))
            axes.set_xticks(range(len(levels)), levels, rotation=60, fontsize=8)
            axes.grid(alpha=0.3)
            axes.set_ylim(-0.02, 1.0)
            if column == 0:
                axes.set_ylabel(f"SSIM of the {quantity}")
        grid[0, column].set_title(axis, fontsize=10)
        grid[0, column].tick_params(labelbottom=False)
    lines, labels = grid[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, lines, strict=True)), 8)
    return as_png(figure)
