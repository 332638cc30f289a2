"""A measured scan, from the file to a report: train without labels, export, reconstruct, compare."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.harness.check import orientation_test
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, orient_pattern

DATA = Path(os.environ.get("PTYCHONNX_DATA", Path(__file__).parents[3] / "shared" / "data"))
STAR, REFERENCE = DATA / "siemens-star-small.npz.bz2", DATA / "siemens_reference.npz"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not STAR.is_file(), reason=f"no measured scan at {STAR}: set PTYCHONNX_DATA"),
]


def test_the_siemens_star_trains_exports_and_is_recognised(programs, tmp_path):
    def ptychonnx(*arguments: object) -> None:
        command = [programs / "ptychonnx", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    pytest.importorskip("lightning")
    run, model = tmp_path / "run", tmp_path / "star.onnx"
    small = (
        "--width",
        8,
        "--blocks",
        1,
        "--modes",
        16,
        "--first-steps",
        4,
        "--final-steps",
        2,
        "--epochs",
        1,
    )
    ptychonnx("train", "fno", "--data", STAR, "--out", run, *small)
    ptychonnx("export", run, "--out", model)
    ptychonnx(
        "reconstruct", model, STAR, "--out", tmp_path / "object.h5", "--picture", tmp_path / "object.png"
    )
    ptychonnx("evaluate", model, "--scan", STAR, "--reference", REFERENCE, "--out", tmp_path / "report")
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    row = metrics["rows"]["pinn_fno"]
    assert row["parity"]["max_relative_error"] < 1e-4
    assert row["phase"]["pearson"] > 0.6  # a canvas that is shifted or flipped gives about 0
    assert not row["phase"]["collapsed"]


def test_every_orientation_of_the_siemens_star_is_recognised(monkeypatch):
    # Most patterns, masks and probes come back for another orientation of the scan, in another order.
    iterate, known = orientation_test.errors_after_few_epochs, {}

    def iterate_once(*arrays):
        key = tuple(hashlib.sha256(np.ascontiguousarray(array)).digest() for array in arrays)
        if key not in known:
            known[key] = iterate(*arrays)
        return known[key]

    monkeypatch.setattr(orientation_test, "errors_after_few_epochs", iterate_once)
    # The middle of each pattern is enough.
    star = read_scan(STAR, probe=REFERENCE, options=ReadOptions(crop=64, resample_probe=True))
    patterns = np.asarray(star.diffraction)
    for wrong in ORIENTATIONS:
        inverse = {"rot90": "rot270", "rot270": "rot90"}.get(wrong, wrong)
        scan = replace(star, diffraction=np.ascontiguousarray(orient_pattern(patterns, inverse)))
        found = orientation_test.orientation_finding(scan)
        assert found.values["best"] == wrong
        assert found.verdict == ("good" if wrong == "identity" else "wrong")
