"""The record of the live benchmark says what its runs measured."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "live.json").read_text(encoding="utf-8"))


def test_every_live_object_is_that_of_the_file() -> None:
    for part in RESULTS["artifacts"]:
        runs = [run for name, runs in part["runs"].items() if name != "offline" for run in runs]
        assert all(run["same"] for run in runs)
        assert all(part["bit_for_bit"].values())
        assert part["lost_frames"] == sum(run["lost"] for run in runs) == 0


def test_ratios_are_those_of_the_runs() -> None:
    for part in RESULTS["artifacts"]:
        assert part["rate_ratio"] > 0.85
        for key, name in (("rate_ratio", "live"), ("late_ratio", "late"), ("watched_ratio", "watched")):
            if name in part["runs"]:
                pairs = zip(part["runs"]["offline"], part["runs"][name], strict=True)
                ratio = median(offline["cpu_ms"] / live["cpu_ms"] for offline, live in pairs)
                assert part[key] == pytest.approx(ratio)
