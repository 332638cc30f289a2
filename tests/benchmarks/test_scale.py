"""The benchmark of large scans: its model computes what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("psutil")
pytest.importorskip("distributed")

from benchmarks import scale

RESULTS = json.loads((Path(scale.__file__).parent / "results" / "scale.json").read_text())


def test_the_model_is_computed_from_the_measured_parts():
    assert scale.model(RESULTS) == RESULTS["model"]
    night = RESULTS["model"]["night"]
    patterns_of_a_scan = night["patterns"] / night["scans"]
    expected = patterns_of_a_scan * RESULTS["model"]["cpu_ms_per_pattern"] / 1e3 + RESULTS["model"]["start_s"]
    assert night["wall_s"] == pytest.approx(expected, abs=1)
