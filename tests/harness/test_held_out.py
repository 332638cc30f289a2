"""Patterns that the iterations do not see tell whether their object is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import ptychonnx
from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.held_out import run_trial
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.reconstruction.misfit import HeldOut
from ptychonnx.runtime.scan import Scan


@pytest.fixture(scope="module")
def scan() -> Scan:
    """Lines that neighbouring patterns share little of: iterations explain almost anything."""
    return ptychonnx.simulate_lines(grid=8, step=20)


def turned(scan: Scan) -> Scan:
    return replace(scan, diffraction=np.ascontiguousarray(scan.diffraction[:].transpose(0, 2, 1)))


def held_out_of(scan: Scan) -> HeldOut | None:
    return run_trial(scan, None, Algorithm()).held_out


def transposed(scan: Scan) -> Scan:
    return replace(scan, positions=np.ascontiguousarray(scan.positions[:, ::-1]))


def longer(scan: Scan) -> Scan:
    return replace(scan, positions=1.1 * scan.positions)


def defocused(scan: Scan, distance: float = 160.0) -> Scan:
    k = np.fft.fftfreq(scan.size)
    phase = np.exp(-1j * distance * np.pi * (k[:, None] ** 2 + k**2))
    return replace(scan, probe=np.fft.ifft2(np.fft.fft2(scan.probe) * phase).astype(np.complex64))


@pytest.mark.parametrize("fault", [transposed, longer, turned, defocused])
def test_what_is_wrong_shows_in_patterns_that_were_held_out(scan: Scan, fault: Callable[[Scan], Scan]):
    right, wrong = (held_out_of(each) for each in (scan, fault(scan)))
    assert right is not None
    assert wrong is not None
    assert right.verdict == "good"
    assert wrong.verdict in ("doubtful", "wrong")
    assert wrong.misfit.value > 5 * right.misfit.value
    assert wrong.misfit.scattered > 5 * right.misfit.scattered


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (-1, 2)])
def test_a_direct_beam_that_is_off_is_told_by_the_ramp_of_the_object(offset: tuple[int, int]):
    """Patterns that are moved belong to the same object with a ramp, and predict each other as well."""
    scan = ptychonnx.simulate_lines(grid=6, step=8)
    moved = replace(scan, diffraction=np.roll(scan.diffraction[:], offset, (1, 2)))
    misfit = ptychonnx.reconstruct(None, moved, iterations=20).misfit
    assert misfit is not None
    assert misfit.verdict == "good"
    np.testing.assert_allclose(misfit.beam_offset, offset, atol=0.1)
    told = f"as if the direct beam were {offset[0]:+.1f} rows and {offset[1]:+.1f} columns from the middle"
    assert (told in str(misfit)) == any(offset)


@pytest.fixture
def scan_file(tmp_path: Path) -> Callable[[Scan], Path]:
    def write(scan: Scan) -> Path:
        path = tmp_path / "scan.npz"
        write_scan(path, scan)
        return path

    return write


@pytest.mark.parametrize(("fault", "verdict"), [(None, "good"), (longer, "doubtful")])
def test_an_object_that_explains_patterns_at_wrong_positions_is_not_called_good(
    run, scan, scan_file, tmp_path, fault, verdict
):
    path, out = scan_file(fault(scan) if fault else scan), tmp_path / "object.h5"
    code, text, err = run("reconstruct", path, "--iterations", 100, "--out", out)
    assert code == 0, err
    said = err if fault else text
    assert f"of patterns that a trial did not see {'0.07' if fault else '0.00'}" in said
    assert f": {verdict}, the object explains the patterns" in said
    with h5py.File(out) as file:
        misfit = dict(file["entry/misfit"].attrs)
    assert misfit["verdict"] == verdict
    # All patterns, to which the object was fitted, do not tell.
    assert misfit["total"] < 0.1
    assert misfit["scattered"] < 0.2
    assert (misfit["held_out_scattered"] > 0.2) == (fault is not None)


def test_a_wrong_object_is_refused_or_reported_as_such(run, scan, scan_file, tmp_path):
    path, out = scan_file(transposed(scan)), tmp_path / "object.h5"
    code, _, err = run("reconstruct", path, "--iterations", 20, "--strict", "--out", out)
    assert code == 1
    assert "--strict: " in err
    assert not out.exists()
    report = tmp_path / "report"
    code, _, err = run("evaluate", "--scan", path, "--iterations", 20, "--out", report)
    assert code == 0, err
    assert "do not use it; `ptychonnx check` tests orientation, axes and units" in " ".join(err.split())
    (row,) = json.loads((report / "metrics.json").read_text())["rows"].values()
    assert row["misfit"]["verdict"] == "wrong"
    assert row["misfit"]["held_out"]["scattered"] > 0.5
    assert row["misfit"]["scattered"] < 0.5


def test_the_trial_refines_the_probe_if_the_iterations_do():
    wrong = defocused(ptychonnx.simulate_lines(grid=8, step=8), 20.0)
    held, refined = (
        run_trial(wrong, None, Algorithm(refine_probe=refines)).held_out for refines in (False, True)
    )
    assert refined.misfit.value < 0.5 * held.misfit.value


def test_a_few_patterns_cannot_be_held_out(scan):
    assert held_out_of(scan.subset(np.arange(8))) is None
    assert held_out_of(scan.subset(np.arange(9))) is not None


def test_patterns_that_share_no_light_tell_nothing():
    apart = ptychonnx.simulate_lines(grid=6, step=32)
    held_out = held_out_of(apart)
    assert held_out.misfit.verdict == "wrong"
    assert held_out.verdict == "unknown"
    assert held_out.shared < 0.2
    misfit = ptychonnx.reconstruct(None, apart, iterations=40).misfit
    assert misfit.verdict == "unknown"
    assert "cannot be judged: neighbouring patterns share too little light to predict each other" in str(
        misfit
    )


def test_patterns_that_were_held_out_have_a_stricter_threshold(scan):
    held_out = held_out_of(scan)
    for value, verdict in ((0.04, "good"), (0.06, "doubtful"), (0.3, "wrong")):
        misfit = replace(held_out.misfit, value=value, vacuum=1.0, scattered=0.1)
        assert replace(held_out, misfit=misfit).verdict == verdict
        assert misfit.verdict == ("good" if value < 0.1 else verdict)


def test_all_the_light_is_shared_where_steps_are_small():
    assert held_out_of(ptychonnx.simulate_lines(grid=6, step=2)).shared > 0.99
