"""Figure of a load test: throughput against the number of clients, latency against the offered rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ptychonnx.harness.bench.load_test import LoadPoint
from ptychonnx.harness.report.figure_style import as_png, blank_figure, legend_below, line_style

__all__ = ["load_figure"]

_MARKER: dict[str, Any] = {"marker": "o", "markersize": 4}


def load_figure(points: Sequence[LoadPoint]) -> bytes:
    """PNG of a load test; the second panel is drawn only if rates were offered."""
    networks = list(dict.fromkeys(point.network for point in points))
    has_open_loop = any(point.offered is not None for point in points)
    figure = blank_figure(9.0 if has_open_loop else 5.0, 3.9, "constrained")
    axes = figure.add_subplot(1, 2 if has_open_loop else 1, 1)
    lines: dict[str, Any] = {}
    for number, network in enumerate(networks):
        closed = [point for point in points if point.network == network and point.offered is None]
        (lines[network],) = axes.plot(
            [point.concurrency for point in closed],
            [point.patterns_per_second for point in closed],
            **line_style(number),
            **_MARKER,
        )
    axes.set(xlabel="clients, each waiting for its answer", ylabel="patterns per second", title="closed loop")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if has_open_loop:
        _draw_open_loop(figure.add_subplot(1, 2, 2), points, networks)
    legend_below(figure, lines, 3)
    return as_png(figure)


def _draw_open_loop(axes: Any, points: Sequence[LoadPoint], networks: Sequence[str]) -> None:
    """Median as a line, and a band up to the 99th percentile."""
    for number, network in enumerate(networks):
        offered = [point for point in points if point.network == network and point.offered is not None]
        rates, medians = [point.offered for point in offered], [point.median_ms for point in offered]
        (line,) = axes.plot(rates, medians, **line_style(number), **_MARKER)
        highest = [point.p99_ms for point in offered]
        axes.fill_between(rates, medians, highest, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(
        xlabel="patterns that arrive per second",
        ylabel="latency (ms)",
        title="open loop: median and 99th percentile",
        yscale="log",
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
