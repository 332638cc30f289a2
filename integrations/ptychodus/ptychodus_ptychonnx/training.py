"""`ptychonnx train` and `ptychonnx export` as processes, since ptychodus needs no training framework of its own."""

from __future__ import annotations

import csv
import logging
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ptychodus.api.io import StandardFileLayout
from ptychodus.api.product import LossValue
from ptychodus.api.reconstruct import TrainOutput

if TYPE_CHECKING:
    from ptychodus_ptychonnx.library import NetworkSettings
    from ptychodus_ptychonnx.reconstructor import TaskMonitor

__all__ = ["train_network"]

logger = logging.getLogger("ptychonnx")
_POLL_SECONDS = 0.2


def train_network(
    settings: NetworkSettings, monitor: TaskMonitor, source: Path, target: Path
) -> Generator[TrainOutput, None, Path | None]:
    """Yield an output after each epoch; the artifact, or None if the user cancels.

    Parameters
    ----------
    source
        Folder with `diffraction.h5` and `product.h5`, or with training data files.
    target
        Folder for the run `ptychonnx_run` and the artifact `model.onnx`.

    Raises
    ------
    RuntimeError
        With the last line of a command that failed.
    """
    run, artifact = target / "ptychonnx_run", target / f"{StandardFileLayout.MODEL_BASENAME}.onnx"
    diffraction = source / StandardFileLayout.DIFFRACTION
    files = [diffraction] if diffraction.is_file() else sorted(source.glob("*.h5"))
    data = [argument for file in files for argument in ("--data", str(file))]
    epochs = settings.training_epochs.get_value()
    train = ["train", settings.architecture.get_value(), *data, "--out", str(run), "--resume"]
    done = 0
    for _ in _running(settings, [*train, "--epochs", str(epochs)]):
        if monitor.is_stopping:
            return None
        output = _progress(run, epochs)
        if output is not None and output.progress > done:
            done = output.progress
            monitor.update_progress(done, epochs)
            yield output
    for _ in _running(settings, ["export", str(run), "--out", str(artifact)]):
        if monitor.is_stopping:
            return None
    output = _progress(run, epochs)
    if output is not None:
        yield output
    return artifact


def _running(settings: NetworkSettings, arguments: Sequence[str]) -> Generator[None, None, None]:
    """Run a command of ptychonnx, and yield several times a second; it is terminated if nobody asks any more."""
    command = [settings.python.get_value(), "-m", "ptychonnx", *arguments]
    logger.info(" ".join(command))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            while True:
                try:
                    printed, _ = process.communicate(timeout=_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    yield
        finally:
            process.terminate()
    for line in printed.splitlines():
        logger.info(line)
    if process.returncode:
        last = printed.strip().rpartition("\n")[2]
        raise RuntimeError(f"ptychonnx {arguments[0]} ended with {process.returncode}: {last}")


def _progress(run: Path, epochs: int) -> TrainOutput | None:
    """Losses of the epochs that are complete, of a run that is finished or not; None before the first."""
    unfinished = sorted(run.with_name(f"{run.name}.unfinished").glob("epochs/*/history.csv"))
    for path in (*reversed(unfinished), run / "history.csv"):
        try:
            rows = list(csv.DictReader(path.read_text().splitlines()))
        except FileNotFoundError:
            continue
        losses = [LossValue(int(row["epoch"]), float(row["loss"])) for row in rows]
        held_out = [LossValue(int(row["epoch"]), float(row["validation_loss"])) for row in rows]
        return TrainOutput(losses, held_out, progress=len(rows))
    return None
