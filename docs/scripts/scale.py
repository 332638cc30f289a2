"""Tables of large scans, nights, orders of positions, faults and costs, from `benchmarks/results/scale.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markdown_tables import results as read_results
from markdown_tables import table as markdown_table


def table(part: str) -> str:
    """A table: ``large``, ``frame``, ``night``, ``orders``, ``reading``, ``faults`` or ``model``."""
    heads, *rows = _TABLES[part](read_results("scale", "benchmarks/results"))
    return markdown_table(heads, rows)


def _large(scan: Mapping[str, Any]) -> list[list[str]]:
    workers = f"{max(scan['dask']['worker_memory_mb'])} per worker"
    lines = [["", "processor time, s", "peak memory, MB"]]
    for name, text in (
        ("one_process", "one process, the whole scan"),
        ("dask", f"Dask, {scan['shards']} parts on {scan['workers']} workers, merged"),
        ("merge", "`merge` alone"),
        ("merge_in_tiles", "`merge --canvas-memory 0.02`"),
        ("one_segment", "one segment, `--shard`"),
        ("one_segment_in_tiles", "one segment, `--canvas-memory 0.002`"),
    ):
        memory = workers if name == "dask" else str(scan[name]["memory_mb"])
        lines.append([text, f"{scan[name]['cpu_s']:.1f}", memory])
    return lines


def _faults(results: Mapping[str, Any]) -> list[list[str]]:
    lines = [["fault", "exit code", "what is said"]]
    for fault, outcome in results["faults"].items():
        message = outcome["message"].replace("|", "\\|").replace("<", "&lt;")
        lines.append([fault, str(outcome["code"]), message])
    return lines


def _model(results: Mapping[str, Any]) -> list[list[str]]:
    model = results["model"]
    night, scan = model["night"], model["large_scan"]
    return [
        ["", "processor time", "wall time"],
        [
            f"{night['scans']:,} scans, {night['patterns']:,} patterns in all, one core",
            f"{night['wall_s_one_core'] / 3600:.1f} h",
            f"{night['wall_s_one_core'] / 3600:.1f} h",
        ],
        [
            f"the same on {model['nodes']} nodes of {model['cores_per_node']} cores, one scan per core",
            f"{night['cpu_hours']} h",
            f"{night['wall_s']} s",
        ],
        [
            f"one scan of {scan['patterns']:,} patterns in {scan['parts']} parts of one core each, "
            f"{scan['parts_mb']} MB of parts",
            f"{(scan['part_s'] * scan['parts'] + scan['merge_s']) / 3600:.2f} h",
            f"{scan['part_s']} s, and {scan['merge_s']} s for the merge",
        ],
    ]


def _night(results: Mapping[str, Any]) -> list[list[str]]:
    lines = [["", *(f"`--executor {engine}:2`" for engine in results["night"])]]
    for name, text in (
        ("scans", "scans"),
        ("corrupt", "of which corrupt"),
        ("killed_by_process_id", "workers killed by their process id"),
        ("objects", "objects"),
        ("equal_to_single_runs", "objects equal to those of single runs, bit for bit"),
        ("lines_of_the_manifest", "lines of the manifest"),
    ):
        lines.append([text, *(str(night[name]) for night in results["night"].values())])
    return lines


def _orders(results: Mapping[str, Any]) -> list[list[str]]:
    heads = [
        "order of the positions",
        "covered, MB",
        "memory, MB",
        "in tiles",
        "stitching, ms per pattern",
        "in tiles",
    ]
    lines = [heads]
    for name, order in results["orders"]["orders"].items():
        whole, tiles = order["whole_canvas"], order["tiles"]
        memory, stitching = (
            [form[key] for form in (whole, tiles)] for key in ("memory_mb", "stitch_ms_per_pattern")
        )
        in_tiles = [f"{memory[1]:.0f}", f"{stitching[1]:.2f}"] if tiles["in_tiles"] else ["–", "–"]
        lines.append(
            [
                name,
                f"{order['covered_mb']:.0f}",
                f"{memory[0]:.0f}",
                in_tiles[0],
                f"{stitching[0]:.2f}",
                in_tiles[1],
            ]
        )
    return lines


def _reading(results: Mapping[str, Any]) -> list[list[str]]:
    lines = [["file", "in its order, ms per pattern", "in strips, ms per pattern"]]
    for name, times in results["orders"]["reading"].items():
        lines.append([name, f"{times['in_file_order_ms']:.3f}", f"{times['in_strips_ms']:.3f}"])
    return lines


_TABLES = {
    "large": lambda results: _large(results["large"]),
    "frame": lambda results: _large(results["without_network"]),
    "night": _night,
    "orders": _orders,
    "reading": _reading,
    "faults": _faults,
    "model": _model,
}
