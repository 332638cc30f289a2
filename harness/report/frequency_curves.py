"""Curves against spatial frequency: Fourier ring correlation and power spectral density, as PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ptychonnx.harness.metrics.comparison import MetricSet
from ptychonnx.harness.metrics.frc import HALF, SEVENTH
from ptychonnx.harness.report.figure_style import as_png, blank_figure, legend_below, line_style
from ptychonnx.harness.report.quantity_images import Panel

__all__ = ["frc_figure", "psd_figure"]

_REFERENCE: dict[str, Any] = {"color": "black", "linewidth": 1.0}
_TWO_SIGMA: dict[str, Any] = {"color": "0.55", "linewidth": 1.0}
# Densities below this fraction of the largest one are rounding errors and not drawn.
_SMALLEST = 1e-7

# Inches of the figure, of the room around its axes and between them, and of a line of the title or the legend.
_WIDTH, _HEIGHT, _LINE = 9.0, 3.9, 0.23
_LEFT, _RIGHT, _GAP, _ABOVE, _BELOW = 0.88, 0.34, 0.84, 0.34, 0.58
_COLUMNS = 5

# Draws the line of one panel in a style; the flag marks the first line in these axes. Returns the line, or None if the
# curve is not defined.
_Draw = Callable[[Any, MetricSet, dict[str, Any], bool], Any]


def frc_figure(panels: Sequence[Panel], title: str = "") -> bytes:
    """Fourier ring correlation of amplitude and phase, with the thresholds of 0.5, 1/7 and 2 sigma."""

    def draw(axes: Any, metrics: MetricSet, style: dict[str, Any], is_first: bool) -> Any:
        if metrics.frc is None:
            return None
        if is_first:
            for threshold, name in ((HALF, "0.5"), (SEVENTH, "1/7")):
                axes.axhline(threshold, color="0.55", linewidth=0.8, linestyle=(0, (2, 2)))
                axes.annotate(
                    name, (0.5, threshold), (3, 0), textcoords="offset points", va="center", fontsize=8
                )
            axes.plot(metrics.frc.frequency, metrics.frc.two_sigma, **_TWO_SIGMA)
            axes.set_ylim(-0.25, 1.05)
        axes.set_ylim(bottom=min(axes.get_ylim()[0], min(metrics.frc.correlation) - 0.05))
        return axes.plot(metrics.frc.frequency, metrics.frc.correlation, **style)[0]

    return _figure(panels, draw, "Fourier ring correlation", title, {}, {"2σ": _TWO_SIGMA})


def psd_figure(panels: Sequence[Panel], title: str = "") -> bytes:
    """Power spectral density of amplitude and phase, with that of the reference in black."""

    def draw(axes: Any, metrics: MetricSet, style: dict[str, Any], is_first: bool) -> Any:
        if metrics.psd is None:
            return None
        psd = metrics.psd
        if is_first:
            axes.plot(psd.frequency, psd.reference_density, **_REFERENCE)
            top = max(psd.reference_density)
            axes.set_ylim(max(top * _SMALLEST, min(psd.reference_density) / 3), top * 3)
        return axes.plot(psd.frequency, psd.density, **style)[0]

    name = "power spectral density\n(unit² per (cycle per pixel)²)"
    return _figure(panels, draw, name, title, {"yscale": "log"}, {"reference": _REFERENCE})


def _figure(
    panels: Sequence[Panel],
    draw: _Draw,
    label: str,
    title: str,
    settings: dict[str, Any],
    shared: dict[str, dict[str, Any]],
) -> bytes:
    """Axes for amplitude and for phase; `shared` holds the styles, by name, of lines that are drawn once.

    Every length is computed, because a layout engine takes longer than the drawing.
    """
    figure = blank_figure(_WIDTH, _HEIGHT)
    lines: dict[str, Any] = {}
    for index, quantity in enumerate(("amplitude", "phase")):
        axes = figure.add_subplot(1, 2, index + 1)
        undefined, is_first = [], True
        for number, panel in enumerate(panels):
            metrics: MetricSet | None = getattr(panel.comparison, quantity, None)
            line = None if metrics is None else draw(axes, metrics, line_style(number), is_first)
            if line is None:
                undefined.append(panel.title)
            else:
                lines[panel.title], is_first = line, False
        axes.set(
            xlim=(0, 0.5),
            xlabel="spatial frequency (cycles per pixel)",
            ylabel=label if index == 0 else None,
            **(settings if not is_first else {}),
        )
        # At a height that is given, or matplotlib measures all labels of the axes for it.
        axes.set_title(quantity, y=1.0)
        # Between decades, which have no labels; matplotlib would measure each of them.
        axes.tick_params(which="minor", labelleft=False)
        axes.spines[["top", "right"]].set_visible(False)
        if undefined:
            text = "not defined:\n" + "\n".join(undefined)
            axes.text(0.02, 0.02, text, transform=axes.transAxes, color="0.4", fontsize=8, va="bottom")
    if lines:
        from matplotlib.lines import Line2D

        lines = {name: Line2D([], [], **style) for name, style in shared.items()} | lines
        legend_below(figure, lines, _COLUMNS)
    if title:
        figure.suptitle(title, fontsize=11)
    above, below = _ABOVE + _LINE * bool(title), _BELOW + _LINE * -(-len(lines) // _COLUMNS)
    figure.subplots_adjust(
        left=_LEFT / _WIDTH,
        right=1 - _RIGHT / _WIDTH,
        bottom=below / _HEIGHT,
        top=1 - above / _HEIGHT,
        wspace=2 * _GAP / (_WIDTH - _LEFT - _RIGHT - _GAP),
    )
    return as_png(figure)
