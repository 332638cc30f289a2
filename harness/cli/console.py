"""Where the command line writes: results to standard output, progress and errors to standard error."""

from __future__ import annotations

import sys

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

# Tables need this much when the output goes to a file, which has no width of its own.
_FILE_WIDTH = 120

output = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
errors = Console(
    stderr=True, highlight=False, emoji=False, width=None if sys.stderr.isatty() else _FILE_WIDTH
)


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
