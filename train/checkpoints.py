"""Epochs of an unfinished run on disk: what is needed to continue, and the best weights so far.

==============================  ================================================================
``epochs/0003/checkpoint.*``    weights of the network after epoch 3
``epochs/0003/state.*``         state of the framework: optimiser, schedule, loops
``epochs/0003/history.csv``     the epochs so far
==============================  ================================================================

A folder gets its name when it is complete, so a kill at any moment leaves whole epochs. The latest and the best epoch
are kept.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.atomic import atomic_folder, atomic_path
from ptychonnx.runtime.errors import EnvironmentFailure, VerificationError
from ptychonnx.train.config import TrainingConfig
from ptychonnx.train.history import HISTORY_NAME, Epoch, best_epoch, is_stale, read_history, write_history

__all__ = ["Checkpoints"]

_EPOCHS = "epochs"


class Checkpoints:
    """The completed epochs of a run.

    * `folder`: folder of the unfinished run.
    * `writes`: False in a process that assists the one that writes.
    """

    def __init__(self, folder: Path, training: TrainingConfig, *, writes: bool = True) -> None:
        self.folder = folder
        self._training = training
        self._writes = writes
        complete = sorted(folder.glob(f"{_EPOCHS}/[0-9]*"))
        self.epochs = read_history(complete[-1] / HISTORY_NAME) if complete else []
        self._start = time.perf_counter() - self.seconds

    def _path(self, epoch: int) -> Path:
        return self.folder / _EPOCHS / f"{epoch:04d}"

    @property
    def done(self) -> int:
        """Number of complete epochs."""
        return len(self.epochs)

    @property
    def seconds(self) -> float:
        """Training time up to the last complete epoch."""
        return self.epochs[-1].seconds if self.epochs else 0.0

    @property
    def latest(self) -> Path | None:
        """Folder of the last complete epoch."""
        return self._path(self.done) if self.done else None

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are the result."""
        return best_epoch(self.epochs, self._training.monitor)

    @property
    def best_folder(self) -> Path:
        return self._path(self.best.epoch)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        training = self._training
        return self.done >= training.epochs or is_stale(self.epochs, training.monitor, training.patience)

    def end_epoch(
        self,
        loss: float,
        validation_loss: float,
        disagreement: float,
        learning_rate: float,
        write: Callable[[Path], None],
        weights: Iterable[NDArray] = (),
    ) -> None:
        """Record an epoch and keep its checkpoint.

        Raises VerificationError if a loss or a weight is not finite. Raises EnvironmentFailure if the checkpoint cannot
        be written, for example because the disk is full.

        Earlier epochs stay on disk in both cases.

        * `write`: writes the checkpoint of the network and the state of the framework into a folder. Called in every
          process.
        * `weights`: weights of the network. Some layers turn NaN into 0, so a finite loss does not prove finite
          weights.
        """
        number = self.done + 1
        if not (math.isfinite(loss) and math.isfinite(validation_loss)):
            raise self._diverged(
                f"the loss of epoch {number} is {loss:g} (held out {validation_loss:g}), expected a finite number"
            )
        if not all(np.isfinite(values).all() for values in weights):
            raise self._diverged(f"weights are not finite after epoch {number}")
        seconds = time.perf_counter() - self._start
        epoch = Epoch(number, loss, validation_loss, disagreement, learning_rate, seconds)
        if self._writes:
            try:
                self._keep(epoch, write)
            except (OSError, EnvironmentFailure) as error:
                raise self.write_failure(error) from error
        else:
            write(self._path(number))
        self.epochs.append(epoch)

    def _keep(self, epoch: Epoch, write: Callable[[Path], None]) -> None:
        epochs = [*self.epochs, epoch]
        with atomic_folder(self._path(epoch.epoch), HISTORY_NAME) as folder:
            write(folder)
            write_history(folder / HISTORY_NAME, epochs)
        with atomic_path(self.folder / HISTORY_NAME) as path:
            write_history(path, epochs)
        kept = {self._path(epoch.epoch), self._path(best_epoch(epochs, self._training.monitor).epoch)}
        for path in (self.folder / _EPOCHS).iterdir():
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _diverged(self, reason: str) -> VerificationError:
        return VerificationError(f"training diverged: {reason}; {self._kept()}try a lower learning rate")

    def write_failure(self, error: OSError | EnvironmentFailure) -> EnvironmentFailure:
        """The error to raise when a file could not be written during training."""
        failure = str(error)
        if isinstance(error, OSError):
            failure = f"{self.folder}: cannot be written ({error.strerror or ' '.join(failure.split())})"
        return EnvironmentFailure(f"{failure}; {self._kept()}make room, then --resume")

    def _kept(self) -> str:
        if not self.done:
            return "no epoch was complete; "
        return f"epoch {self.done} is kept in {self.folder}; "

    def remove(self) -> None:
        """Remove the epochs once the run is complete."""
        shutil.rmtree(self.folder / _EPOCHS, ignore_errors=True)
