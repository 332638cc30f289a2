"""`ptychonnx reconstruct --correct-positions`."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.formats import write_scan


def rms(shifts):
    centred = shifts - shifts.mean(axis=0)
    return float(np.sqrt(np.mean(np.sum(centred**2, axis=1))))


def test_the_command_writes_positions_and_shifts(tmp_path, run):
    # Lines under a zone plate at an overlap of 60 %.
    lines = simulate_scan(LinesConfig(step=12), 4, np.random.SeedSequence(3), "lines")
    errors = np.random.default_rng(0).normal(size=lines.positions.shape)
    errors *= 2 / rms(errors)
    scan = replace(lines, positions=lines.positions - errors)
    write_scan(tmp_path / "scan.npz", scan)
    out, table = tmp_path / "object.h5", tmp_path / "positions.csv"
    arguments = ["reconstruct", "zoo:any_64", tmp_path / "scan.npz", "--out", out]
    code, printed, _ = run(*arguments, "--correct-positions", "free", "--positions-out", table)
    assert code == 0
    assert "positions corrected (free)" in printed
    rows = list(csv.DictReader(table.read_text().splitlines()))
    shifts = np.array([[float(row["row_shift_px"]), float(row["column_shift_px"])] for row in rows])
    corrected = np.array([[float(row["row_px"]), float(row["column_px"])] for row in rows])
    assert rms(shifts - errors) < 0.8
    np.testing.assert_allclose(corrected - shifts, scan.positions, atol=1e-3)
    for wrong, message in (
        (["--positions-out", str(table)], "--positions-out: positions stay as they are"),
        (
            ["--correct-positions", "free", "--patches", str(tmp_path / "p.h5")],
            "those at the recorded positions",
        ),
        (
            ["--correct-positions", "free", "--shard", "1/2"],
            "--correct-positions: is for a scan that one process",
        ),
    ):
        code, _, err = run(*arguments, *wrong)
        assert code == 2
        assert message in err
