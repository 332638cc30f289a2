"""The transformed pattern is the pattern of the transformed object, and the transformation is undone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

pytest.importorskip("torch")

from benchmarks.orientations import ORIENTATIONS, table, turned, turned_back
from benchmarks.single_pattern_bounds import RESULTS, TABLES


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_turned_pattern_is_that_of_the_turned_object(orientation):
    scan = simulate_scan(LinesConfig(), 2, np.random.SeedSequence(5), "test")
    known = cut_windows(scan.reference.object, scan.positions, scan.size)
    np.testing.assert_allclose(
        turned(scan.probe, orientation), scan.probe, atol=1e-6 * np.abs(scan.probe).max()
    )
    patterns = forward(known, scan.probe)
    np.testing.assert_allclose(
        forward(turned(known, orientation), scan.probe),
        turned(patterns, orientation),
        atol=1e-4 * patterns.max(),
    )
    np.testing.assert_array_equal(turned_back(turned(known, orientation), orientation), known)


def test_the_page_has_the_recorded_figures():
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))["orientations"]
    assert table(recorded).splitlines() == json.loads(TABLES.read_text(encoding="utf-8"))["orientations"]
