"""`history.csv`: losses and figures of training, one row per epoch, the same columns for both frameworks."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ptychonnx.runtime.errors import InputError
from ptychonnx.train.config import Monitor

__all__ = ["HISTORY_NAME", "Epoch", "best_epoch", "is_stale", "read_history", "write_history"]

HISTORY_NAME = "history.csv"


@dataclass(frozen=True)
class Epoch:
    """One row."""

    epoch: int  # from 1
    loss: float  # mean of the epoch
    validation_loss: float  # of the held-out patterns after it
    disagreement: float  # of overlapping patches, see `ptychonnx.train.overlap_consistency`
    learning_rate: float  # of the last step
    seconds: float  # training time so far, without epochs that an interruption lost

    def monitored(self, monitor: Monitor) -> float:
        """The monitored figure; lower is better, and NaN counts as infinity."""
        value = self.validation_loss if monitor == "loss" else self.disagreement
        return value if math.isfinite(value) else math.inf


def best_epoch(epochs: Sequence[Epoch], monitor: Monitor) -> Epoch:
    """The epoch with the lowest monitored figure; the first of equal ones."""
    return min(epochs, key=lambda epoch: epoch.monitored(monitor))


def is_stale(epochs: Sequence[Epoch], monitor: Monitor, patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no improvement.

    It depends on the history alone, so a resumed run stops where an uninterrupted one does.
    """
    if patience is None or not epochs:
        return False
    return epochs[-1].epoch - best_epoch(epochs, monitor).epoch >= patience


def write_history(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write all rows; floats are read back exactly."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Epoch))
        writer.writerows(astuple(epoch) for epoch in epochs)


def read_history(path: Path) -> list[Epoch]:
    """Read a file of `write_history`.

    Raises InputError if the file is missing or has other columns.
    """
    names = [field.name for field in fields(Epoch)]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                Epoch(int(row["epoch"]), *(float(row[name]) for name in names[1:]))
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a history of training, expected the columns {', '.join(names)}"
        ) from error
