"""Where the command line writes: results to standard output, progress and errors to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["errors", "output", "progress_bar"]

output = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def progress_bar() -> Progress:
    """A bar with counts and times, drawn only on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
    )
