"""Tables of live reconstruction, from `benchmarks/results/live.json`."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from markdown_tables import results as read_results
from markdown_tables import table as markdown_table


def table(part: str) -> str:
    """A table: ``rates``, ``latency``, ``memory`` or ``sources``."""
    return _TABLES[part](read_results("live", "benchmarks/results"))


def _name(part: Mapping[str, Any]) -> str:
    return f"`zoo:{part['artifact'].removesuffix('.onnx')}`"


def _ratio(part: Mapping[str, Any], key: str) -> str:
    return f"{part[key]:.2f}" if key in part else "–"


def _rates(results: Mapping[str, Any]) -> str:
    heads = [
        "network",
        "N",
        "`reconstruct`, ms",
        "`live`, ms",
        "of which the network",
        "ratio",
        "700 frames ahead",
    ]
    rows = []
    for part in results["artifacts"]:
        live = part["runs"]["live"]
        row = [_name(part), str(part["n"])]
        row += [f"{median(run['cpu_ms'] for run in runs):.1f}" for runs in (part["runs"]["offline"], live)]
        row.append(f"{100 * median(run['network_cpu_ms'] / run['cpu_ms'] for run in live):.1f} %")
        row += [_ratio(part, key) for key in ("rate_ratio", "late_ratio", "watched_ratio")]
        rows.append([*row, str(part["lost_frames"])])
    return markdown_table([*heads, "page open", "frames lost"], rows)


def _latency(results: Mapping[str, Any]) -> str:
    heads = ["network", "frames per second", "of the core", "in the object, ms", "drawn after its copy, ms"]
    rows = []
    for part in results["artifacts"]:
        if (calm := part.get("calm")) is None:
            continue
        share = calm["rate"] * calm["cpu_ms"] / 1000
        row = [_name(part), f"{calm['rate']:.0f}", f"{100 * share:.0f} %"]
        for kind in ("", "drawn_"):
            row.append(f"{calm[f'{kind}median_ms']:,.0f} / {calm[f'{kind}p99_ms']:,.0f}")
        rows.append(row)
    return markdown_table(heads, rows)


def _memory(results: Mapping[str, Any]) -> str:
    rows = []
    for part in results["artifacts"]:
        offline, live = (
            median(run["memory_mb"] for run in part["runs"][name]) for name in ("offline", "live")
        )
        rows.append(
            [_name(part), f"{part['patterns']:,}", f"{offline:.0f}", f"{live:.0f}", f"{live / offline:.2f}"]
        )
    if scan := results.get("long_scan"):
        row = [f"{scan[name]['memory_mb']:.0f}" for name in ("offline", "live")]
        rows.append(["patterns are recognised", f"{scan['patterns']:,}", *row, f"{scan['memory_ratio']:.2f}"])
    return markdown_table(["network", "patterns", "`reconstruct`, MB", "`live`, MB", "ratio"], rows)


def _sources(results: Mapping[str, Any]) -> str:
    protocols = list(results["artifacts"][0]["bit_for_bit"])
    words = {True: "yes", False: "no", None: "–"}
    return markdown_table(
        ["network", *(f"`{protocol}`" for protocol in protocols)],
        [
            [_name(part), *(words[part["bit_for_bit"].get(protocol)] for protocol in protocols)]
            for part in results["artifacts"]
        ],
    )


_TABLES = {"rates": _rates, "latency": _latency, "memory": _memory, "sources": _sources}
