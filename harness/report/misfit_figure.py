"""Maps of the forward misfit over a scan: one dot per compared pattern, as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ptychonnx.harness.report.figure_style import as_png, blank_figure
from ptychonnx.runtime.reconstruction.misfit import DOUBTFUL, GOOD, Misfit

__all__ = ["misfit_figure"]

_MAX_COLUMNS = 4
_PANEL_INCHES, _BAR_INCHES, _HEAD_INCHES = 2.1, 1.0, 0.5
# Points squared that all dots of a panel have together: neighbours of a raster nearly touch.
_INK = 13000.0


def misfit_figure(misfits: Mapping[str, Misfit], title: str = "") -> bytes:
    """One map per reconstruction, by label, on one scale from 0 to the threshold of wrong or beyond."""
    columns = min(len(misfits), _MAX_COLUMNS)
    rows = math.ceil(len(misfits) / columns)
    figure = blank_figure(
        columns * _PANEL_INCHES + _BAR_INCHES,
        rows * (_PANEL_INCHES + _HEAD_INCHES) + _HEAD_INCHES,
        "constrained",
    )
    if title:
        figure.suptitle(title, fontsize=11)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    largest = max(float(np.max(misfit.per_pattern)) for misfit in misfits.values())
    for axes, (label, misfit) in zip(panels, misfits.items(), strict=False):
        drawn = axes.scatter(
            misfit.positions[:, 1],
            misfit.positions[:, 0],
            c=misfit.per_pattern,
            s=min(240.0, _INK / len(misfit.patterns)),
            marker="o",
            vmin=0,
            vmax=max(1.2 * DOUBTFUL, largest),
            cmap="magma",
            linewidths=0,
        )
        axes.set_title(
            f"{label}\n{misfit.value:.3f}, scattered {misfit.scattered:.3f}: {misfit.verdict}",
            fontsize=9,
            y=1.0,
        )
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in panels[len(misfits) :]:
        axes.set_axis_off()
    bar = figure.colorbar(drawn, ax=list(panels), shrink=0.8, label="forward misfit")
    for threshold in (GOOD, DOUBTFUL):
        bar.ax.axhline(threshold, color="white", linewidth=1)
    return as_png(figure)
