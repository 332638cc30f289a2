"""Tables of large scans, faults and the model of cost, from `benchmarks/results/scale.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def rows(part: str) -> list[list[str]]:
    """Heads and rows of a table: ``large``, ``faults`` or ``model``."""
    results = json.loads((ROOT / "benchmarks/results/scale.json").read_text(encoding="utf-8"))
    return _TABLES[part](results)


def _large(results: Mapping[str, Any]) -> list[list[str]]:
    scan = results["large"]
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


_TABLES = {"large": _large, "faults": _faults, "model": _model}
