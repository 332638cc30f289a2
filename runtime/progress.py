"""Progress of long work: one protocol from the library to a terminal, a log or a program.

The library part reports to a `Progress` that the caller passes, and prints nothing. `SILENT` is the default; the
command line passes a Rich bar on a terminal and lines otherwise; a program passes a `Callback`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SILENT", "Callback", "Progress", "ProgressUpdate"]


class Progress(Protocol):
    """Receives progress. Stages follow each other; a new stage ends the one before."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Begin a stage.

        Parameters
        ----------
        name
            What is done now, as a participle: "Training pinn_fno".
        total
            Number of steps, or None if unknown.
        unit
            What is counted, in the plural: "patterns", "epochs".
        """

    def update(self, done: int, total: int | None = None) -> None:
        """Report that `done` steps of the stage are complete; `total` replaces the earlier one if given.

        May be called from any thread.
        """


@dataclass(frozen=True)
class ProgressUpdate:
    """One report: `done` of `total` (None if unknown) `unit` of `stage`."""

    stage: str
    done: int
    total: int | None
    unit: str


class Callback:
    """Progress for programs: every report is passed to `function` as a `ProgressUpdate`.

    Examples
    --------
    >>> progress = Callback(lambda update: print(update.stage, update.done, update.total))
    >>> progress.stage("Stitching", total=2, unit="patterns")
    Stitching 0 2
    >>> progress.update(1)
    Stitching 1 2
    """

    def __init__(self, function: Callable[[ProgressUpdate], None]) -> None:
        self._function = function
        self._now = ProgressUpdate("", 0, None, "")

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Begin a stage, which is reported with nothing done."""
        self._report(ProgressUpdate(name, 0, total, unit))

    def update(self, done: int, total: int | None = None) -> None:
        """Report that `done` steps are complete."""
        now = self._now
        self._report(ProgressUpdate(now.stage, done, now.total if total is None else total, now.unit))

    def _report(self, update: ProgressUpdate) -> None:
        self._now = update
        self._function(update)


SILENT: Progress = Callback(lambda update: None)
