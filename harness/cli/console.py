"""Terminal output: results on standard output; progress, log lines and errors on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.segment import Segment
from rich.text import Text

from ptychonnx.runtime.progress import SILENT, Progress

if TYPE_CHECKING:
    from ptychonnx.runtime.reconstruction import Reconstruction

__all__ = [
    "errors",
    "one_line",
    "output",
    "print_lines",
    "print_misfit",
    "print_result",
    "report_progress",
    "set_verbosity",
]

# Width of tables in a file or a pipe, which have none of their own.
_FILE_WIDTH = 120
# Interval between the lines of a long stage where there is no terminal.
_SECONDS_PER_LINE = 30.0


class _Console(Console):
    """Prints names and labels of files as data: a terminal obeys nothing in them."""

    # Texts in tables are measured before they are rendered.
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_visible(text, keep="\n\t"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _visible(text, keep="\n\t"), style, control)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


output = _Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
errors = _Console(
    stderr=True, highlight=False, emoji=False, width=None if sys.stderr.isatty() else _FILE_WIDTH
)


def one_line(text: str) -> str:
    """Text in one line; characters that a terminal would obey, as a name of a file may hold, become ?."""
    return _visible(" ".join(text.split()))


def _visible(text: str, keep: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else "?" for letter in text)


class _LogLines(logging.Handler):
    """Log records as dim lines on standard error, warnings in yellow."""

    def emit(self, record: logging.LogRecord) -> None:
        line = one_line(record.getMessage())
        if record.levelno >= logging.WARNING:
            errors.print(Text(f"Warning: {line}", style="yellow"), soft_wrap=True)
        elif record.levelno >= logging.INFO:
            errors.print(Text(line, style="dim"), soft_wrap=True)
        else:
            errors.print(Text(f"{record.name}: {line}", style="dim"), soft_wrap=True)


_LOG_LINES = _LogLines()


def set_verbosity(verbosity: int) -> None:
    """Choose what is logged to standard error, and whether progress is shown.

    `verbosity`: -1: warnings only, and no progress; 0: how inputs were understood; 1: also the decisions of export
    passes; 2: also the log of other packages.
    """
    root = logging.getLogger()
    root.removeHandler(_LOG_LINES)
    root.addHandler(_LOG_LINES)
    root.setLevel(logging.INFO if verbosity > 1 else logging.WARNING)
    level = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.getLogger("ptychonnx").setLevel(level)


class _Bars:
    """One bar for each stage, with counts and times."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task = self._bars.add_task(name, total=total, unit=unit)

    def update(self, done: int, total: int | None = None) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)


class _Lines:
    """One line for each stage, and more of them while a stage is long."""

    def __init__(self) -> None:
        self._name, self._unit = "", ""
        self._total: int | None = None
        self._last = 0.0

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self._name, self._total, self._unit = name, total, unit
        self._print("")

    def update(self, done: int, total: int | None = None) -> None:
        self._total = self._total if total is None else total
        if time.monotonic() - self._last >= _SECONDS_PER_LINE:
            of = "" if self._total is None else f" of {self._total}"
            self._print(f": {done}{of} {self._unit}".rstrip())

    def _print(self, suffix: str) -> None:
        self._last = time.monotonic()
        errors.print(Text(one_line(self._name + suffix), style="dim"), soft_wrap=True)


@contextmanager
def report_progress() -> Iterator[Progress]:
    """Progress for the length of a `with` block: bars on a terminal, lines elsewhere, nothing with `--quiet`."""
    if not logging.getLogger("ptychonnx").isEnabledFor(logging.INFO):
        yield SILENT
    elif not errors.is_terminal:
        yield _Lines()
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=errors) as bars:
            yield _Bars(bars)


def print_result(path: Path, lines: Sequence[str]) -> None:
    """Print the file that a command wrote, and its verdict line by line."""
    output.print(Text(one_line(str(path)), style="bold"), soft_wrap=True)
    print_lines(*lines)


def print_misfit(reconstruction: Reconstruction, logger: logging.Logger) -> None:
    """Print the forward misfit of an object; as a warning unless it is good."""
    misfit = reconstruction.misfit
    if misfit is not None and misfit.verdict == "good":
        print_lines(str(misfit))
    else:
        logger.warning("%s", misfit or "forward misfit unknown: it needs a probe, and an object in memory")
    if reconstruction.position_doubt:
        logger.warning("%s", reconstruction.position_doubt)


def print_lines(*lines: str, console: Console = output) -> None:
    """Print lines as they are, however long."""
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
