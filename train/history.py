"""`history.csv`: what training reported, a row an epoch, in the same columns for both frameworks."""

from __future__ import annotations

import csv
import io
import math
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from runtime.atomic import write_text
from runtime.errors import InputError

__all__ = ["Epoch", "History"]


@dataclass(frozen=True)
class Epoch:
    """One row."""

    epoch: int
    loss: float
    validation_loss: float
    learning_rate: float
    seconds: float


class History:
    """Collects epochs and keeps the file up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = time.perf_counter()
        self.epochs: list[Epoch] = []

    @property
    def seconds(self) -> float:
        """Since training began."""
        return time.perf_counter() - self._start

    def append(self, loss: float, validation_loss: float, learning_rate: float) -> None:
        """Add an epoch and rewrite the file.

        Raises
        ------
        InputError
            If a loss is not finite: the settings do not train.
        """
        number = len(self.epochs) + 1
        if not (math.isfinite(loss) and math.isfinite(validation_loss)):
            raise InputError(
                f"training diverged: the loss of epoch {number} is {loss:g} (held out {validation_loss:g}), "
                "expected a finite number; try a lower learning rate"
            )
        self.epochs.append(Epoch(number, loss, validation_loss, learning_rate, self.seconds))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(Epoch))
        writer.writerows(astuple(epoch) for epoch in self.epochs)
        write_text(self._path, text.getvalue())
