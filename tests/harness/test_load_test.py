"""The load test counts waiting, measures networks interleaved, and refuses what it cannot measure."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from skimage.io import imread

from ptychonnx.harness.bench.load_test import measure_load
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.inference import Session


def test_every_client_waits_for_its_answer(four_artifacts, lines_scan):
    session = Session(four_artifacts[0], "cpu", 1)
    lock, together, most = threading.Lock(), 0, 0
    predict = session.predict

    def counted(diffraction: np.ndarray) -> np.ndarray:
        nonlocal together, most
        assert diffraction.shape == (4, 1, 16, 16)
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.01)
        try:
            return predict(diffraction)
        finally:
            with lock:
                together -= 1

    session.predict = counted
    (point,) = measure_load([session], lines_scan, concurrency=[3], batch=4, seconds=0.2, rounds=2)
    assert most == 3
    assert point.requests > 6
    assert point.median_ms <= point.p90_ms <= point.p99_ms <= point.longest_ms
    # An answer takes 10 ms at least, and three clients wait for one at a time.
    assert point.median_ms >= 10
    assert point.patterns_per_second <= 3 * 4 / 0.01


def test_the_command_measures_in_turns_and_writes_its_figures(four_artifacts, lines_scan, run, tmp_path):
    write_scan(tmp_path / "scan.npz", lines_scan)
    options = ["--scan", tmp_path / "scan.npz", "--seconds", "0.05", "--rounds", 1]
    code, out, error = run(
        "bench", *four_artifacts[:2], *options, "--concurrency", 1, "--concurrency", 2, "--out", tmp_path / "b.json"
    )  # fmt: skip
    assert code == 0, error
    assert "patterns/s" in out
    assert error.startswith("Warning: bench under load is now `ptychonnx loadtest`")
    points = json.loads((tmp_path / "b.json").read_text())["points"]
    assert [(point["concurrency"], point["network"]) for point in points] == [
        (1, "pinn_cnn.onnx"), (1, "pinn_fno.onnx"), (2, "pinn_cnn.onnx"), (2, "pinn_fno.onnx"),
    ]  # fmt: skip
    assert run("loadtest", *options)[0] == 2
    assert run("loadtest", "--server", "grpc://127.0.0.1:9/x", *options)[0] == 3


def test_what_cannot_be_measured_is_refused(four_artifacts, lines_scan, scan_of):
    session = Session(four_artifacts[0], "cpu", 1)
    with pytest.raises(InputError, match="numbers above 0"):
        measure_load([session], lines_scan, concurrency=[0])
    with pytest.raises(InputError, match="patterns are 8 x 8 pixels"):
        measure_load([session], scan_of(size=8))


def test_in_an_open_loop_waiting_counts(four_artifacts, lines_scan):
    session = Session(four_artifacts[0], "cpu", 1)
    predict = session.predict

    def slow(diffraction):
        time.sleep(0.02)
        return predict(diffraction)

    session.predict = slow
    # A request takes 20 ms, so at most 50 per second are answered: 10 per second are sustained, 200 pile up.
    closed, calm, rush = measure_load(
        [session], lines_scan, concurrency=[1], rates=[10, 200], batch=1, seconds=0.5, rounds=1
    )
    assert (closed.offered, calm.offered, rush.offered) == (None, 10, 200)
    assert calm.requests == 5
    assert calm.median_ms < rush.median_ms / 2
    assert calm.patterns_per_second < 30
    assert rush.requests == 100
    assert rush.longest_ms > 1000
    assert rush.patterns_per_second < 60


def test_the_picture_shows_both_loads(four_artifacts, lines_scan, run, tmp_path):
    write_scan(tmp_path / "scan.npz", lines_scan)
    code, out, error = run(
        "loadtest", *four_artifacts[:2], "--scan", tmp_path / "scan.npz", "--seconds", "0.05", "--rounds", 1,
        "--concurrency", 1, "--rate", 100, "--rate", 200, "--picture", tmp_path / "load.png",
    )  # fmt: skip
    assert code == 0, error
    assert imread(tmp_path / "load.png").shape[1] > 1000
    assert "200" in out
    assert run("loadtest", four_artifacts[0], "--scan", tmp_path / "scan.npz", "--rate", 0)[0] == 2
