"""Result of a device check as text and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ptychonnx.harness.report.figure_style import as_png, blank_figure, legend_below, line_style

__all__ = ["as_text", "rates_figure"]


def as_text(record: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a reader: the device, then each network."""
    device, results = record["device"], record["results"]
    for number, card in enumerate(device["devices"]):
        yield f"device {number}: {', '.join(f'{name} {value}' for name, value in card.items())}"
    cuda = device["cuda"]
    working = f"driver {cuda['driver']} runs CUDA up to {cuda['driver_supports']}"
    yield f"CUDA: {cuda['problem'] or working}"
    for name, path in cuda["libraries"].items():
        yield f"  {name}: {path or 'missing'}"
    yield f"processor: {device['processor']}, {device['threads']} threads"
    yield "versions: " + ", ".join(f"{name} {number}" for name, number in device["versions"].items())
    for network in record["settings"]["artifacts"]:
        yield ""
        yield f"{network} on {record['settings']['provider']}"
        for step, lines in _LINES.items():
            name = f"{network}/{step}"
            if name in results:
                yield from (f"  {line}" for line in lines(results[name]))
            elif name in record.get("failed", {}):
                yield f"  {step}: failed: {record['failed'][name]}"
            elif name in record["not_run"]:
                yield f"  {step}: not run, the time was over"


def _nodes(result: Mapping[str, Any]) -> Iterator[str]:
    placed = ", ".join(f"{count} on {name}" for name, count in result["nodes_by_provider"].items())
    yield f"nodes: {result['nodes_in_file']} in the file, {placed}; loaded in {result['load_seconds']:.2f} s"
    if result["on_the_cpu"]:
        yield result["on_the_cpu"]


def _parity(result: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in result.items():
        error = entry.get("error") or f"{entry['relative_error']:.1e} of the largest output"
        yield f"{name}: {error}{', ' + entry['verdict'] if 'verdict' in entry else ''}"


def _rates(result: Mapping[str, Any]) -> Iterator[str]:
    for row in result["batches"]:
        rates = "; ".join(f"{name} {rate:,.0f}" for name, rate in row["patterns_per_second"].items())
        yield f"batch {row['batch']}, patterns/s: {rates}; memory {row['memory_mb']:.0f} MB"
        if "fixed_batch_error" in row:
            yield f"  {row['fixed_batch_error']}"
    if result["ended"]:
        yield f"not measured: {result['ended']}"


def _end_to_end(result: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"from file to object: {result['patterns']} patterns in {result['seconds']:.2f} s, "
        f"{result['patterns_per_second']:,.0f} patterns/s, batch {result['batch']}; {result['misfit'] or 'no misfit'}"
    )


def _native(result: Mapping[str, Any]) -> Iterator[str]:
    rates = "; ".join(f"{name} {rate:,.0f}" for name, rate in result["patterns_per_second"].items())
    yield f"frameworks on {result['device']}, batch {result['batch']}, patterns/s: {rates}"


def _kernels(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"kernels: {result['launches']} nodes started, {result['milliseconds']:.2f} ms for batch {result['batch']}"
    for entry in result["largest"]:
        yield f"  {entry['share']:.1%} {entry['operator']} {entry['node']}"


_LINES = {
    "nodes": _nodes,
    "parity": _parity,
    "rates": _rates,
    "end to end": _end_to_end,
    "native": _native,
    "kernels": _kernels,
    "lower precision": _parity,
}


def rates_figure(record: Mapping[str, Any]) -> bytes:
    """PNG with a panel for each network that was measured: patterns per second against the batch, by way to run."""
    from matplotlib.ticker import LogLocator

    panels = {
        name.partition("/")[0]: result["batches"]
        for name, result in record["results"].items()
        if name.endswith("/rates") and result["batches"]
    }
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = blank_figure(3.4 * columns + 0.6, 2.9 * rows + 0.6, "constrained")
    lines: dict[str, Any] = {}
    every = [row["patterns_per_second"] for points in panels.values() for row in points]
    ways = dict.fromkeys(way for rates in every for way in rates)
    for number, (network, measured) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        for style, name in enumerate(ways):
            points = [(row["batch"], row["patterns_per_second"].get(name)) for row in measured]
            points = [point for point in points if point[1] is not None]
            if points:
                (lines[name],) = axes.plot(
                    *zip(*points, strict=True), marker="o", markersize=4, **line_style(style)
                )
        axes.set(title=network, xlabel="batch", ylabel="patterns per second", xscale="log", yscale="log")
        axes.set_xticks([row["batch"] for row in measured], [str(row["batch"]) for row in measured])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, lines, 2)
    return as_png(figure)
