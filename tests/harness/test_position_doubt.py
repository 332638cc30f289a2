"""Without a probe there is no misfit: every command says what the patches of neighbours tell about the positions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptychonnx import simulate_lines
from ptychonnx.harness.cli import live as live_command
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.live.events import PositionsEnd, SeriesEnd
from ptychonnx.runtime.live.live_settings import LiveSettings
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from tests.harness.live_streams import Experiment, frames_of, live, samples_of

NETWORK = "zoo:pinn_hybrid"
SENTENCE = "neighbouring patches agree better with rows and columns exchanged"


@pytest.fixture(scope="module")
def exchanged():
    scan = simulate_lines(grid=6)
    positions = np.ascontiguousarray(scan.positions[:, ::-1])
    return replace(scan, positions=positions, probe=None, reference=None)


@pytest.fixture
def file(exchanged, tmp_path):
    write_scan(tmp_path / "exchanged.npz", exchanged)
    return tmp_path / "exchanged.npz"


def test_evaluate_says_it_and_writes_it(run, file, tmp_path):
    code, _, error = run(
        "evaluate", NETWORK, "--scan", file, "--weighting", "window", "--out", tmp_path / "report"
    )
    assert code == 0, error
    assert SENTENCE in " ".join(error.split())
    (row,) = json.loads((tmp_path / "report" / "metrics.json").read_text())["rows"].values()
    assert any(SENTENCE in note for note in row["notes"])


def test_merge_says_it(run, file, tmp_path):
    part = tmp_path / "part.h5"
    code, _, error = run(
        "reconstruct", NETWORK, file, "--weighting", "window", "--shard", "1/1", "--out", part
    )
    assert code == 0, error
    code, _, error = run("merge", part, "--out", tmp_path / "object.h5")
    assert code == 0, error
    assert SENTENCE in " ".join(error.split())


def test_live_says_it(exchanged, file, tmp_path, caplog):
    settings = LiveSettings(
        batch=12, stitching=ReconstructOptions(weighting="window"), reading=ReadOptions(positions_unit="px")
    )
    network = Session(NETWORK, "cpu")
    experiment = Experiment(exchanged, file, network, np.empty(0), settings)
    (series,) = live(
        experiment, [*frames_of(exchanged), SeriesEnd(1)], [samples_of(exchanged), PositionsEnd()]
    )
    live_command._report(tmp_path / "object.h5", series, network, settings.batch)
    assert SENTENCE in caplog.text
