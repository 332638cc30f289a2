"""Epochs on disk: whole or not at all, and which of them count."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.train.checkpoints import Checkpoints
from ptychonnx.train.config import TrainingConfig
from ptychonnx.train.history import Epoch, best_epoch, is_stale, read_history, write_history

KILLED = """
import os, signal, sys
from pathlib import Path
from ptychonnx.train.config import TrainingConfig
from ptychonnx.train.checkpoints import Checkpoints

checkpoints = Checkpoints(Path(sys.argv[1]), TrainingConfig(epochs=5))

def write(folder):
    (folder / "checkpoint.pt").write_text(f"weights {checkpoints.done + 1}")
    if checkpoints.done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "state.ckpt").write_text("state")

for loss in (3, 2, 1):
    checkpoints.end_epoch(loss, loss, 0.5, 1e-3, write)
"""


def keep(checkpoints, *figures):
    def write(folder):
        (folder / "checkpoint.pt").write_text(f"weights {checkpoints.done + 1}")

    for figure in figures:
        checkpoints.end_epoch(1.0, figure, 1 / figure, 1e-3, write)


def test_a_kill_while_an_epoch_is_written_leaves_the_one_before(tmp_path):
    code = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    ).returncode
    assert code == -signal.SIGKILL
    checkpoints = Checkpoints(tmp_path, TrainingConfig(epochs=5))
    assert checkpoints.done == 2
    assert (checkpoints.latest / "checkpoint.pt").read_text() == "weights 2"
    assert (checkpoints.latest / "state.ckpt").read_text() == "state"
    keep(checkpoints, 0.5)
    assert [path.name for path in (tmp_path / "epochs").iterdir()] == ["0003"]


def test_only_the_best_and_the_latest_epoch_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, TrainingConfig(epochs=9))
    keep(checkpoints, 3.0, 1.0, 2.0, 2.0)
    assert sorted(path.name for path in (tmp_path / "epochs").iterdir()) == ["0002", "0004"]
    assert (checkpoints.best_folder / "checkpoint.pt").read_text() == "weights 2"
    assert Checkpoints(tmp_path, TrainingConfig(epochs=9)).epochs == checkpoints.epochs


def test_the_monitored_figure_chooses_the_best_epoch(tmp_path):
    checkpoints = Checkpoints(tmp_path, TrainingConfig(epochs=9, monitor="disagreement"))
    keep(checkpoints, 3.0, 1.0, 2.0)
    assert checkpoints.best.epoch == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_a_clear_line(tmp_path, bad):
    checkpoints = Checkpoints(tmp_path, TrainingConfig(epochs=9))
    keep(checkpoints, 3.0)
    with pytest.raises(
        VerificationError, match=f"training diverged: the loss of epoch 2 is {bad:g}.*epoch 1 is kept"
    ):
        checkpoints.end_epoch(bad, 0.6, 0.5, 1e-3, lambda folder: None)
    assert checkpoints.done == 1
    assert len(read_history(tmp_path / "history.csv")) == 1


def epochs_of(*figures):
    return [Epoch(number, 1.0, figure, 1.0, 1e-3, 1.0) for number, figure in enumerate(figures, 1)]


@pytest.mark.parametrize(
    ("figures", "patience", "stale"),
    [
        ((3, 2, 1), 1, False),
        ((3, 1, 2), 1, True),
        ((3, 1, 2), 2, False),
        ((3, 1, 2, 1), 2, True),
        ((1, 2, 3), None, False),
    ],
)
def test_patience_counts_epochs_without_a_better_figure(figures, patience, stale):
    assert is_stale(epochs_of(*figures), "loss", patience) is stale


def test_what_is_no_number_is_never_the_best():
    assert best_epoch(epochs_of(math.nan, 2, 3), "loss").epoch == 2


def test_a_history_is_read_back_exactly(tmp_path):
    epochs = [Epoch(1, 0.1 + 0.2, 1 / 3, math.inf, 1e-300, 5.5)]
    write_history(tmp_path / "history.csv", epochs)
    assert read_history(tmp_path / "history.csv") == epochs
    (tmp_path / "history.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(InputError, match="expected the columns epoch, loss, validation_loss"):
        read_history(tmp_path / "history.csv")
