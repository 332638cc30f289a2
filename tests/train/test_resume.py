"""Interrupted trainings: what is kept, and that going on gives what an uninterrupted training gives."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.errors import EnvironmentFailure, InputError, VerificationError
from ptychonnx.runtime.formats import read_scan, write_scan
from ptychonnx.train.fine_tuning import find_initial_weights
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.history import read_history
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import read_run
from ptychonnx.train.training_plan import PLAN_NAME, read_plan
from ptychonnx.train.unfinished_run import open_unfinished
from tests.train.tiny import SHALLOW, on_steps

FRAMEWORK = {"fno": "lightning", "cnn": "tensorflow"}
STEPS = 12  # in an epoch of the tiny scan


def train_tiny(scan, name, out, on_step=lambda done, total: None, *, resume=False, source=None, **values):
    pytest.importorskip(FRAMEWORK[name])
    architecture = get_architecture(name)
    network, training = settings_for(architecture, {**SHALLOW, "epochs": 4, **values})
    return train(
        scan, architecture, network, training, out, on_steps(on_step), resume=resume, initial_weights=source
    )


def without_times(path):
    return [replace(epoch, seconds=0) for epoch in read_history(path)]


class Stopped(Exception):
    """As an exception of any kind would end a training."""


def stop_after(step):
    def on_step(done, total):
        if done == step:
            raise Stopped

    return on_step


@pytest.fixture(scope="module")
def scan_file(tiny_scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "tiny.npz"
    write_scan(path, tiny_scan)
    return path


@pytest.fixture(scope="module")
def uninterrupted(scan_file, tmp_path_factory):
    folder, done = tmp_path_factory.mktemp("uninterrupted"), {}

    def run(name):
        if name not in done:
            done[name] = train_tiny(read_scan(scan_file), name, folder / name)
        return folder / name, done[name]

    return run


@pytest.mark.parametrize("name", FRAMEWORK)
def test_a_killed_training_goes_on_to_the_same_weights(name, scan_file, uninterrupted, tmp_path):
    whole, record = uninterrupted(name)
    out = tmp_path / "run"
    script = Path(__file__).with_name("killed.py")
    killed = subprocess.run(
        [sys.executable, str(script), name, str(scan_file), str(out), str(2 * STEPS + STEPS // 2)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(read_history(tmp_path / "run.unfinished" / "history.csv")) == 2

    steps = []
    resumed = train_tiny(read_scan(scan_file), name, out, lambda done, total: steps.append(done), resume=True)
    assert steps == list(range(2 * STEPS + 1, 4 * STEPS + 1))
    assert resumed.trained_tensors == record.trained_tensors
    assert resumed.initial_tensors == record.initial_tensors
    assert without_times(out / "history.csv") == without_times(whole / "history.csv")
    assert sorted(path.name for path in (out / "logs").iterdir()) == ["from_epoch_0001", "from_epoch_0003"]
    assert not (tmp_path / "run.unfinished").exists()


@pytest.mark.parametrize("name", FRAMEWORK)
def test_a_full_disk_stops_training_and_keeps_the_last_epoch(name, scan_file, uninterrupted, tmp_path):
    with small_files_only() as forbid, pytest.raises(EnvironmentFailure) as stopped:
        train_tiny(
            read_scan(scan_file),
            name,
            tmp_path / "run",
            lambda done, total: forbid() if done == STEPS + 2 else None,
        )
    line = str(stopped.value)
    assert "run.unfinished/epochs/0002: cannot be written (File too large)" in line
    assert "epoch 1 is kept" in line
    assert "\n" not in line
    resumed = train_tiny(read_scan(scan_file), name, tmp_path / "run", resume=True)
    assert resumed.trained_tensors == uninterrupted(name)[1].trained_tensors


@contextmanager
def small_files_only() -> Iterator:
    """A function after whose call no file can grow beyond 3 kB, which a full disk looks like; undone at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    compiled = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # compiled modules would be cut short too
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = compiled


@pytest.mark.parametrize("name", FRAMEWORK)
def test_weights_that_turn_bad_stop_training_and_keep_the_last_epoch(name, scan_file, tmp_path, monkeypatch):
    pytest.importorskip(FRAMEWORK[name])
    training = import_module(f"ptychonnx.train.{get_architecture(name).framework}.training")
    tasks = []
    build = training.ReconstructionTask.__init__
    monkeypatch.setattr(
        training.ReconstructionTask,
        "__init__",
        lambda self, *given: (build(self, *given), tasks.append(self))[0],
    )

    def spoil(done, total):
        if done == STEPS + 1:
            if name == "fno":
                next(iter(tasks[0].module.parameters())).data.fill_(np.nan)
            else:
                weight = tasks[0].model.trainable_variables[0]
                weight.assign(np.full(weight.shape, np.nan))

    with pytest.raises(VerificationError, match=r"training diverged: .* epoch 2.*epoch 1 is kept"):
        train_tiny(read_scan(scan_file), name, tmp_path / "run", spoil, epochs=2)
    assert find_initial_weights(tmp_path / "run.unfinished").checkpoint.parent.name == "0001"


def test_patterns_that_turn_bad_stop_training_and_keep_the_last_epoch(scan_file, tmp_path):
    scan = read_scan(scan_file)

    def spoil(done, total):
        if done == 2 * STEPS + 1:
            scan.diffraction[:] = np.nan

    with pytest.raises(VerificationError, match=r"the loss of epoch 3 is nan.*epoch 2 is kept"):
        train_tiny(scan, "fno", tmp_path / "run", spoil)
    kept = find_initial_weights(tmp_path / "run.unfinished")
    assert kept.checkpoint.parent.name == "0002"
    record = train_tiny(
        read_scan(scan_file), "fno", tmp_path / "other", source=kept, epochs=1, learning_rate=1e-4
    )
    assert record.init_sha256 == kept.sha256


def test_a_scan_that_vanishes_during_training_does_no_harm(scan_file, uninterrupted, tmp_path):
    path = tmp_path / "tiny.npz"
    path.write_bytes(scan_file.read_bytes())
    record = train_tiny(
        read_scan(path), "fno", tmp_path / "run", lambda done, total: path.unlink(missing_ok=True)
    )
    assert not path.exists()
    assert record.trained_tensors == uninterrupted("fno")[1].trained_tensors


def test_an_interrupted_training_is_neither_forgotten_nor_mixed_with_another(tiny_scan, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train_tiny(tiny_scan, "fno", out, stop_after(STEPS + 1))
    with pytest.raises(InputError, match=r"holds an interrupted training; --resume continues it"):
        train_tiny(tiny_scan, "fno", out)
    with pytest.raises(InputError, match=r"it was started with learning_rate = 0.001, not 0.002"):
        train_tiny(tiny_scan, "fno", out, resume=True, learning_rate=2e-3)
    with pytest.raises(InputError, match="it was started with another scan"):
        train_tiny(tiny_scan.subset(slice(0, 60)), "fno", out, resume=True)
    plan = tmp_path / "run.unfinished" / PLAN_NAME
    ours = plan.read_text()
    plan.write_text(ours.replace('"revision": 1', '"revision": 0'))
    with pytest.raises(InputError, match="it was started with revision 0 of fno, not 1"):
        train_tiny(tiny_scan, "fno", out, resume=True)
    plan.write_text(ours)
    with (
        open_unfinished(out, read_plan(plan.parent), resume=True),
        pytest.raises(InputError, match="another process is training there"),
    ):
        train_tiny(tiny_scan, "fno", out, resume=True)
    train_tiny(tiny_scan, "fno", out, resume=True)


def test_a_training_in_its_first_epoch_is_not_thrown_away_by_a_second_one(tiny_scan, tmp_path):
    out = tmp_path / "run"

    def begin_another(done, total):
        if done == 2:
            with pytest.raises(InputError, match="another process is training there"):
                train_tiny(tiny_scan, "fno", out)

    record = train_tiny(tiny_scan, "fno", out, begin_another, epochs=1)
    assert read_run(out) == record


def test_an_interruption_in_the_first_epoch_leaves_nothing(tiny_scan, tmp_path):
    with pytest.raises(Stopped):
        train_tiny(tiny_scan, "fno", tmp_path / "run", stop_after(3))
    assert not list(tmp_path.iterdir())


def test_an_earlier_run_stays_until_the_new_one_is_complete(tiny_scan, tmp_path):
    out = tmp_path / "run"
    first = train_tiny(tiny_scan, "fno", out, epochs=1)
    with pytest.raises(Stopped):
        train_tiny(tiny_scan, "fno", out, stop_after(STEPS + 1), seed=1)
    assert read_run(out) == first
    second = train_tiny(tiny_scan, "fno", out, resume=True, seed=1)
    assert read_run(out) == second


def test_resuming_a_finished_run_trains_nothing(tiny_scan, tmp_path):
    out, steps = tmp_path / "run", []
    record = train_tiny(tiny_scan, "fno", out, resume=True, epochs=1)
    again = train_tiny(tiny_scan, "fno", out, lambda done, total: steps.append(done), resume=True, epochs=1)
    assert again == record
    assert not steps
    with pytest.raises(InputError, match="it was started with epochs = 1, not 2"):
        train_tiny(tiny_scan, "fno", out, resume=True, epochs=2)


@pytest.mark.parametrize("name", FRAMEWORK)
def test_fine_tuning_starts_from_the_weights_of_a_run(name, scan_file, uninterrupted, tmp_path):
    folder, record = uninterrupted(name)
    brighter = read_scan(scan_file)
    brighter = replace(
        brighter, diffraction=2 * brighter.diffraction, probe=2 * brighter.probe, reference=None
    )
    tuned = train_tiny(
        brighter, name, tmp_path / "run", source=find_initial_weights(folder), epochs=1, learning_rate=1e-5
    )
    assert tuned.initial_tensors == record.trained_tensors
    assert tuned.trained_tensors != record.trained_tensors
    # The scale of the new scan, not that of the old one, is in the network.
    assert tuned.validation_loss == pytest.approx(record.validation_loss, rel=0.02)
    from ptychonnx.train.run import fingerprint
    from ptychonnx.train.trained_network import initial_network

    initial = initial_network(tmp_path / "run", tuned)
    assert fingerprint(initial.tensors()) == tuned.initial_tensors


def test_weights_of_another_network_are_refused(uninterrupted, tiny_scan, tmp_path):
    folder, _ = uninterrupted("fno")
    with pytest.raises(InputError, match="was trained with width = 8, which cannot become 12"):
        train_tiny(tiny_scan, "fno", tmp_path / "run", source=find_initial_weights(folder), width=12)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="expected the run folder that it was exported from"):
        find_initial_weights(tmp_path / "a.onnx")


@pytest.mark.parametrize("name", FRAMEWORK)
def test_training_stops_when_nothing_improves_and_keeps_the_best_epoch(name, tiny_scan, tmp_path):
    # A rate at which the loss goes up and down.
    record = train_tiny(
        tiny_scan, name, tmp_path / "run", epochs=30, learning_rate=0.05, patience=2, batch=16
    )
    history = read_history(tmp_path / "run" / "history.csv")
    figures = [epoch.validation_loss for epoch in history]
    assert record.epochs_done == len(history) == record.best_epoch + 2 < 30
    assert record.validation_loss == min(figures) < figures[-1]
    from ptychonnx.train.run import fingerprint
    from ptychonnx.train.trained_network import load_network

    assert fingerprint(load_network(tmp_path / "run", record).tensors()) == record.trained_tensors
