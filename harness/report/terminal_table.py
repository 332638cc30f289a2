"""Comparison table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanResult
from ptychonnx.harness.metrics.comparison import MetricSet
from ptychonnx.harness.metrics.frc import RingCorrelation

__all__ = ["comparison_table", "format_cutoff", "format_value"]

_UNDEFINED = "–"


# Headings of the columns after the names, and whether a narrow terminal shows them.
_COLUMNS = (
    ("parity", True),
    ("A\nSSIM", True),
    ("A\nr", True),
    ("A\nMAE", False),
    ("A\nPSNR", False),
    ("P\nSSIM", True),
    ("P\nr", True),
    ("P\nMAE", False),
    ("A FRC\n0.5/1/7", False),
    ("P FRC\n0.5/1/7", False),
    ("ms per\npattern", True),
)
_FULL_WIDTH = 100


def comparison_table(evaluation: Evaluation, width: int = 120) -> Table:
    """Table of at most `width` characters with one line per row and scan; below 100 only the most important metrics."""
    several = len(evaluation.scans) > 1
    full = width >= _FULL_WIDTH
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=(
            "A amplitude, P phase (rad), r Pearson; FRC: cycles per pixel at 0.5/1/7, never = not crossed; "
            "parity: largest relative error against the native network; – not defined"
            if full
            else "A amplitude, P phase, r Pearson; parity: largest relative error against the native network"
        ),
        caption_justify="left",
    )
    table.add_column("artifact", overflow="fold", min_width=12)
    if several:
        table.add_column("scan", overflow="fold", max_width=14)
    kept = [index for index, (_, essential) in enumerate(_COLUMNS) if full or essential]
    for index in kept:
        table.add_column(_COLUMNS[index][0], justify="right", no_wrap=True)
    for row in evaluation.rows:
        for number, (name, result) in enumerate(row.results.items()):
            first = number == 0
            head = [row.label if first else "", *([name] if several else [])]
            if result.collapsed:
                # On its own line, because a column for it would narrow the names.
                head[-1] += "\nCOLLAPSED"
            style = "red" if result.collapsed else ""
            cells = [_parity(row) if first else "", *_cells(result)]
            table.add_row(*map(Text, head), *(cells[index] for index in kept), style=style)
    return table


def format_value(value: float | None, digits: int = 3) -> str:
    """A number, or a dash if it is not defined."""
    return _UNDEFINED if value is None else f"{value:.{digits}f}"


def format_cutoff(value: float | None) -> str:
    """Short form of the cut-off of a defined curve."""
    return "never" if value is None else f"{value:.3f}".removeprefix("0")


def _parity(row: EvaluationRow) -> str:
    return _UNDEFINED if row.parity is None else f"{row.parity.max_relative_error:.0e}"


def _cells(result: ScanResult) -> list[str]:
    speed = f"{result.ms_per_pattern:.2f}"
    if result.comparison is None:
        return [*[_UNDEFINED] * 9, speed]
    amplitude, phase = result.comparison.amplitude, result.comparison.phase
    return [
        *_quality(amplitude),
        format_value(amplitude.psnr, 1),
        *_quality(phase),
        _cutoffs(amplitude.frc),
        _cutoffs(phase.frc),
        speed,
    ]


def _quality(metrics: MetricSet) -> list[str]:
    return [format_value(metrics.ssim), format_value(metrics.pearson), format_value(metrics.mae)]


def _cutoffs(frc: RingCorrelation | None) -> str:
    if frc is None:
        return _UNDEFINED
    return f"{format_cutoff(frc.cutoff_half)}/{format_cutoff(frc.cutoff_seventh)}"
