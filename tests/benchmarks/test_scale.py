"""The benchmark of large scans: its scan is read as it was meant, and its model computes what its page says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("psutil")
pytest.importorskip("distributed")

from benchmarks import scale
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.reconstruction.misfit import forward_misfit
from ptychonnx.runtime.reconstruction.stitching import Stitched

RESULTS = json.loads((Path(scale.__file__).parent / "results" / "scale.json").read_text())


def test_the_counts_are_those_of_the_object_at_the_positions(tmp_path):
    scale.write_large_scan(tmp_path / "scan.cxi", 6)
    scan = read_scan(tmp_path / "scan.cxi", estimate_probe=True)
    assert scan.diffraction.shape == (36, 64, 64)
    assert scan.pixel_size == pytest.approx(scale.PIXEL_SIZE)
    with h5py.File(tmp_path / "scan.cxi") as file:
        assert file["entry_1/data_1/data"].dtype == np.uint32
    side = scale.SIZE + 5 * scale.STEP + 2 * scale.JITTER
    image = scale.lines_object((scale.PERIOD, scale.PERIOD), np.random.default_rng(0))[:side, :side]
    # The reader lets positions begin elsewhere; the first ones were shifted by up to a pixel from the raster.
    misfits = []
    for first in itertools.product(range(32, 35), repeat=2):
        row, column = scan.positions.min(axis=0) - first
        misfits.append(forward_misfit(scan, Stitched(image, np.ones(image.shape), (row, column))).value)
    assert min(misfits) < 0.01 < sorted(misfits)[1]


def test_the_model_is_computed_from_the_measured_parts():
    assert scale.model(RESULTS) == RESULTS["model"]
    night = RESULTS["model"]["night"]
    patterns_of_a_scan = night["patterns"] / night["scans"]
    expected = patterns_of_a_scan * RESULTS["large"]["cpu_ms_per_pattern"] / 1e3 + RESULTS["model"]["start_s"]
    assert night["wall_s"] == pytest.approx(expected, abs=1)
