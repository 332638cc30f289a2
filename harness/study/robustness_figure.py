"""Figure of the robustness study: quality against the level of each condition, amplitude above and phase below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptychonnx.harness.report.figure_style import as_png, blank_figure, line_style

__all__ = ["AxisCurves", "robustness_figure"]


@dataclass(frozen=True)
class AxisCurves:
    """SSIM at each level of one axis, by label of the network; None where not defined."""

    title: str
    levels: Sequence[str]
    amplitude: Mapping[str, Sequence[float | None]]
    phase: Mapping[str, Sequence[float | None]]


def robustness_figure(columns: Sequence[AxisCurves]) -> bytes:
    """PNG with one column per axis; levels are drawn at equal distances, since they have no common unit."""
    widths = [max(len(column.levels), 3) for column in columns]
    figure = blank_figure(2 + 0.5 * sum(widths), 5.6, "constrained")
    grid = figure.subplots(2, len(columns), sharey=True, squeeze=False, width_ratios=widths)
    for number, column in enumerate(columns):
        for axes, curves in zip(grid[:, number], (column.amplitude, column.phase), strict=True):
            for index, (label, values) in enumerate(curves.items()):
                axes.plot(
                    [np.nan if value is None else value for value in values],
                    label=label,
                    marker=".",
                    **line_style(index),
                )
            axes.set_xticks(range(len(column.levels)), column.levels, rotation=60, fontsize=8)
            axes.grid(alpha=0.3)
            axes.set_ylim(-0.02, 1.0)
        grid[0, number].set_title(column.title, fontsize=10)
        grid[0, number].tick_params(labelbottom=False)
    grid[0, 0].set_ylabel("SSIM of the amplitude")
    grid[1, 0].set_ylabel("SSIM of the phase")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 8), fontsize=9)
    return as_png(figure)
