"""The picture of a load test: throughput against the number of clients, latency against the offered rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ptychonnx.harness.report.object_figures import COLOURS, DASHES, as_png, blank_figure

if TYPE_CHECKING:
    from ptychonnx.harness.bench.load_test import LoadPoint

__all__ = ["load_figure"]


def load_figure(points: Sequence[LoadPoint]) -> bytes:
    """Bytes of a PNG; the second panel is there only if rates were offered."""
    networks = list(dict.fromkeys(point.network for point in points))
    is_open = any(point.offered is not None for point in points)
    figure = blank_figure(9.0 if is_open else 5.0, 3.9, "constrained")
    closed = figure.add_subplot(1, 2 if is_open else 1, 1)
    lines: dict[str, Any] = {}
    for number, network in enumerate(networks):
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number % len(DASHES)],
            "linewidth": 1.6,
            "marker": "o",
            "markersize": 4,
        }
        own = [point for point in points if point.network == network]
        at_most = [point for point in own if point.offered is None]
        (lines[network],) = closed.plot(
            [point.concurrency for point in at_most],
            [point.patterns_per_second for point in at_most],
            **style,
        )
    closed.set(xlabel="clients, each waiting for its answer", ylabel="patterns a second", title="closed loop")
    closed.locator_params(axis="x", integer=True)  # there is no half client
    closed.set_ylim(bottom=0)
    closed.spines[["top", "right"]].set_visible(False)
    if is_open:
        _open_loop(figure.add_subplot(1, 2, 2), points, networks)
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="outside lower center",
        ncols=min(len(lines), 3),
        frameon=False,
        fontsize=9,
    )
    return as_png(figure)


def _open_loop(axes: Any, points: Sequence[LoadPoint], networks: Sequence[str]) -> None:
    """Median as a line, up to the 99th percentile as a band."""
    for number, network in enumerate(networks):
        offered = [point for point in points if point.network == network and point.offered is not None]
        rates = [point.offered for point in offered]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            rates,
            [point.median_ms for point in offered],
            color=colour,
            linestyle=DASHES[number % len(DASHES)],
            linewidth=1.6,
            marker="o",
            markersize=4,
        )
        axes.fill_between(
            rates,
            [point.median_ms for point in offered],
            [point.p99_ms for point in offered],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.set(
        xlabel="patterns that arrive a second",
        ylabel="latency (ms)",
        title="open loop: median, and up to 99 %",
        yscale="log",
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
