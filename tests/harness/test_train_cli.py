"""`ptychonnx train` as its users meet it: settings files, lines of error, logs, several devices."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from ptychonnx import zoo
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.formats import write_scan
from ptychonnx.train.history import read_history
from ptychonnx.train.run import read_run

pytest.importorskip("lightning")

SMALL = {
    "epochs": 2,
    "width": 8,
    "blocks": 2,
    "modes": 8,
    "first_steps": 3,
    "final_steps": 2,
    "batch": 4,
    "overlap": 1,
}


@pytest.fixture(scope="module")
def data(lines_scan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_scan(folder / "train.npz", lines_scan)
    return folder


@pytest.fixture
def settings(data, tmp_path):
    path = tmp_path / "study.yaml"
    content = {"architecture": "fno", "data": str(data), "out": str(tmp_path / "run"), **SMALL}
    path.write_text(yaml.safe_dump(content))
    return path


def test_what_is_typed_wins_over_the_file_and_the_file_over_defaults(run, settings, tmp_path):
    code, out, err = run("train", "--config", settings, "--epochs", 1)
    assert code == 0, err
    assert "1 epochs" in out
    resolved = yaml.safe_load((tmp_path / "run" / "train.yaml").read_text())
    assert (resolved["epochs"], resolved["width"], resolved["loss"], resolved["seed"]) == (1, 8, "mae", 0)
    # The resolved copy is a settings file too, and gives the same network.
    code, _, err = run("train", "--config", tmp_path / "run" / "train.yaml", "--out", tmp_path / "again")
    assert code == 0, err
    again = yaml.safe_load((tmp_path / "again" / "train.yaml").read_text())
    assert again == {**resolved, "out": str(tmp_path / "again")}
    assert (tmp_path / "again" / "checkpoint.pt").read_bytes() == (
        tmp_path / "run" / "checkpoint.pt"
    ).read_bytes()


@pytest.mark.parametrize("command", [("train",), ("study", "lines", "--out", "study")])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("wdith: 8", "wdith is no option of this command; the nearest is width"),
        ("learning-rat: 1", "learning-rat is no option of this command; the nearest is learning_rate"),
        ("resume: true", "resume is no option of this command"),
        ("epochs: many", "epochs = 'many': "),
        ("loss: huber", "loss = 'huber': "),
        ("- epochs", "holds a list, expected a mapping of options to values"),
        ("epochs: 2020-13-45", "epochs = '2020-13-45': "),
        ("epochs: &a [*a]", "line 1: aliases"),
        ("epochs: [", "line 1: "),
    ],
)
def test_a_settings_file_that_says_something_else_is_refused(run, tmp_path, command, text, line):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    code, out, err = run(*command, "--config", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {path}: {line}")
    assert len(err.splitlines()) == 1


def test_the_general_network_of_the_zoo_is_fine_tuned_on_one_scan(run, tmp_path):
    config = LinesConfig(step=8, train_grid=6, probe="disk", photons=1e7)
    write_scan(tmp_path / "scan.npz", simulate_scan(config, 6, np.random.SeedSequence(4), "scan.npz"))
    command = ["train", "--data", tmp_path / "scan.npz", "--out", tmp_path / "run", "--init-from"]
    code, _, err = run(*command, "zoo:any_64", "--epochs", 1, "--overlap", 1, "--learning-rate", 1e-6)
    assert code == 0, err
    record = read_run(tmp_path / "run")
    assert (record.architecture, record.network.final_steps) == ("hybrid", 30)
    checkpoint = zoo.path("any_64").with_suffix("") / "checkpoint.pt"
    assert record.init_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert record.initial_tensors == read_run(checkpoint.parent).trained_tensors != record.trained_tensors
    code, _, err = run(*command, "zoo:pinn_fno")
    assert (code, err) == (
        2,
        "Error: zoo: no run is named 'pinn_fno', expected one of any_64, any_64_grid2\n",
    )


def test_a_settings_file_that_is_not_there_is_named(run, tmp_path):
    code, _, err = run("train", "--config", tmp_path / "none.yaml")
    assert code == 2
    expected = "expected a mapping of options to values"
    assert err == f"Error: {tmp_path / 'none.yaml'}: cannot be read (No such file or directory), {expected}\n"


def test_a_scan_that_was_lost_stops_resuming_with_one_line(run, settings, data, tmp_path):
    code, _, err = run("train", "--config", settings, "--data", tmp_path / "lost.npz", "--resume")
    assert code == 2
    assert f"Error: {tmp_path / 'lost.npz'}: " in err
    half = tmp_path / "half.npz"
    half.write_bytes((data / "train.npz").read_bytes()[:5000])
    code, _, err = run("train", "--config", settings, "--data", half, "--resume")
    assert code == 2
    assert f"Error: {half}: " in err
    assert not (tmp_path / "run").exists()


def test_two_processes_that_share_every_step_train_like_one(run, settings, tmp_path):
    code, _, err = run("train", "--config", settings)
    assert code == 0, err
    done = subprocess.run(
        [sys.executable, "-m", "ptychonnx.harness.cli", "train", "--config", str(settings)]
        + ["--out", str(tmp_path / "shared"), "--devices", "2"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pinn_fno") == 1
    alone, shared = (
        [epoch.validation_loss for epoch in read_history(tmp_path / name / "history.csv")]
        for name in ("run", "shared")
    )
    assert shared == pytest.approx(alone, rel=1e-4)
    assert alone[1] != pytest.approx(alone[0], rel=1e-3)


def test_logs_for_tensorboard_are_written_or_refused_with_what_to_install(run, settings, tmp_path):
    code, _, err = run("train", "--config", settings, "--tensorboard")
    if find_spec("tensorboard") is None:
        assert code == 2
        assert 'pip install "ptychonnx[tensorboard]"' in err
        assert not (tmp_path / "run").exists()
    else:
        assert code == 0, err
        assert list(tmp_path.glob("run/logs/*/events.out.tfevents.*"))


def test_devices_that_cannot_share_a_step_are_refused(run, settings, tmp_path):
    code, _, err = run("train", "--config", settings, "--devices", 3)
    assert code == 2
    assert "--devices 3: a step has 4 groups of 1 patterns, expected a multiple of 3" in err
    assert not (tmp_path / "run.unfinished").exists()
