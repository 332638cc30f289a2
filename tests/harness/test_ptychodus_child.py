"""The child protocol of ptychodus: events as JSON lines, signals, exit codes, and the files of its folders."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ptychonnx.harness.campaign.child_process import ChildProcess
from ptychonnx.harness.campaign.scan_run import RunOptions
from ptychonnx.harness.iterative.iteration_options import IterationOptions
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.formats.writers.reconstruction_file import write_reconstruction
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct

FIRST_INDEX = 7


@pytest.fixture
def few(scan_of):
    return scan_of(grid=5)


@pytest.fixture
def artifact(oracle, few, degradations, tmp_path):
    """A network that is not quite right."""
    return oracle(tmp_path / "blurred.onnx", few, "pinn_fno", degradations["blurred"])


@pytest.fixture
def folder(few, artifact, tmp_path):
    """A folder as ptychodus leaves it; indexes do not begin at 0."""
    source = tmp_path / "in"
    source.mkdir()
    session = Session(artifact)
    write_reconstruction(source / "product.h5", reconstruct(session, few), few, session.contract)
    indexes = FIRST_INDEX + np.arange(len(few))
    with h5py.File(source / "product.h5", "r+") as file:
        file["probe_position_indexes"][:] = indexes
    with h5py.File(source / "diffraction.h5", "w") as file:
        file["patterns"] = np.square(few.diffraction, dtype=np.float64)
        file["indexes"] = indexes
        file["bad_pixels"] = np.zeros((few.size, few.size), bool)
    return source


def child(folder, artifact, tmp_path, refine=0, **options):
    """Exit code and events of a child in this process."""
    target, lines = tmp_path / "out", []
    target.mkdir(exist_ok=True)
    run = RunOptions(iterations=IterationOptions(refine=refine))
    code = ChildProcess(folder, target, artifact, run, lines.append, **options).run()
    return code, [json.loads(line) for line in lines], target


def test_a_child_reports_and_writes_the_product(folder, artifact, few, tmp_path):
    code, events, target = child(folder, artifact, tmp_path, refine=2)
    assert code == 0
    names = [event["event"] for event in events]
    assert names == ["started", "epoch", "checkpoint", "epoch", "epoch", "finished"]
    started, _, checkpoint, *_, last, finished = events
    assert started["num_epochs"] == 3
    assert started["num_patterns"] == len(few)
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [1, 2, 3]
    assert last["loss"] < events[3]["loss"]
    assert (finished["epoch"], finished["cancelled"]) == (3, False)
    assert finished["path"] == started["product_output"] == str(target / "product.h5")
    assert checkpoint["path"] == str(target / "product.000001.h5")
    expected = reconstruct(Session(artifact), read_scan(folder / "diffraction.h5")).object
    with h5py.File(checkpoint["path"]) as file, h5py.File(finished["path"]) as product:
        np.testing.assert_allclose(np.squeeze(file["object"][:]), expected, atol=1e-6)
        assert np.abs(product["object"][:] - file["object"][:]).max() > 1e-3
        for written in (file, product):
            np.testing.assert_array_equal(
                written["probe_position_indexes"][:], FIRST_INDEX + np.arange(len(few))
            )
    assert sorted(path.name for path in target.iterdir()) == ["product.000001.h5", "product.h5"]


def test_half_of_the_patterns_keep_their_indexes(folder, artifact, few, tmp_path):
    code, events, target = child(folder, artifact, tmp_path, index_filter="odd")
    assert code == 0
    with h5py.File(target / "product.h5") as file:
        indexes = file["probe_position_indexes"][:]
    assert (indexes % 2 == 1).all()
    assert events[0]["num_patterns"] == len(indexes) == 13


def test_what_is_wrong_is_an_event(folder, artifact, tmp_path):
    (folder / "product.h5").unlink()
    code, events, target = child(folder, artifact, tmp_path)
    assert code == 2
    (error,) = events
    assert error["event"] == "error"
    assert error["type"] == "InputError"
    assert "product.h5: no such file" in error["message"]
    assert not (target / "product.h5").exists()


def test_a_signal_ends_the_iterations_with_a_product(folder, artifact, tmp_path):
    target = tmp_path / "out"
    command = [sys.executable, "-m", "ptychonnx.harness.cli", "ptychodus-child", "--model", artifact]
    command += ["-i", folder, "-o", target, "--refine", "100000"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "epoch" and events[-1]["epoch"] == 2:
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    names = [event["event"] for event in events]
    assert names[:3] == ["started", "epoch", "checkpoint"]
    assert {"event": "cancelling", "signal": "SIGTERM"} in events
    assert names[-1] == "finished"
    assert events[-1]["cancelled"] is True
    assert 2 <= events[-1]["epoch"] < 100000
    with h5py.File(events[-1]["path"]) as file:
        assert np.isfinite(file["object"][:]).all()
    # Everything else that was printed is in the log.
    assert (target / "ptychodus.log").is_file()


def test_a_cancelled_network_leaves_no_product(folder, artifact, tmp_path):
    target, lines = tmp_path / "out", []
    target.mkdir()
    process = ChildProcess(folder, target, artifact, RunOptions(), lines.append)
    process.cancel("SIGINT")
    assert process.run() == 130
    finished = json.loads(lines[-1])
    assert (finished["event"], finished["epoch"], finished["path"]) == ("finished", 0, None)
    assert not list(target.iterdir())
