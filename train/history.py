"""`history.csv`: what training reported, a row an epoch, in the same columns for both frameworks."""

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
    """One row.

    Attributes
    ----------
    epoch
        From 1.
    loss, validation_loss
        Mean of the epoch, and of the held-out patterns after it.
    disagreement
        Of overlapping patches, see `ptychonnx.train.overlap_consistency`.
    learning_rate
        Of the last step.
    seconds
        Of training so far, without what was lost when it was interrupted.
    """

    epoch: int
    loss: float
    validation_loss: float
    disagreement: float
    learning_rate: float
    seconds: float

    def figure(self, monitor: Monitor) -> float:
        """What is watched; lower is better, and what is no number is worst."""
        value = self.validation_loss if monitor == "loss" else self.disagreement
        return value if math.isfinite(value) else math.inf


def best_epoch(epochs: Sequence[Epoch], monitor: Monitor) -> Epoch:
    """The epoch with the lowest figure; the first of equal ones."""
    return min(epochs, key=lambda epoch: epoch.figure(monitor))


def is_stale(epochs: Sequence[Epoch], monitor: Monitor, patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no better figure.

    A function of the history alone: a resumed run stops where an uninterrupted one does.
    """
    if patience is None or not epochs:
        return False
    return epochs[-1].epoch - best_epoch(epochs, monitor).epoch >= patience


def write_history(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write all rows; floats so that they are read back exactly."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Epoch))
        writer.writerows(astuple(epoch) for epoch in epochs)


def read_history(path: Path) -> list[Epoch]:
    """Read what `write_history` wrote.

    Raises
    ------
    InputError
        If it is something else.
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
            f"{path}: no history of a training, expected the columns {', '.join(names)}"
        ) from error
