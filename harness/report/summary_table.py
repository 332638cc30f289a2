"""Summary table of the page: columns and cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanResult
from ptychonnx.harness.metrics.bootstrap import Interval
from ptychonnx.harness.metrics.comparison import MetricSet

__all__ = ["Cell", "Column", "Line", "summary_columns", "summary_lines"]

_UNDEFINED = "–"
_QUANTITIES = ("amplitude", "phase")
_HEADS = ("SSIM", "MS-SSIM", "Pearson", "MAE", "PSNR", "FRC 0.5", "FRC 1/7", "PSD")


@dataclass(frozen=True)
class Column:
    """A column; `group` is its quantity, and `starts` marks the first column of a group."""

    head: str
    group: str
    starts: bool
    hint: str


@dataclass(frozen=True)
class Cell:
    """Text of a cell, a second line in small print, and the number to sort by (None is last)."""

    text: str
    small: str = ""
    sort: float | None = None
    starts: bool = False


@dataclass(frozen=True)
class Line:
    """Results of a row on one scan; `note` states what distinguishes it from others."""

    label: str
    note: str
    scan: str
    collapsed: bool
    parity: Cell
    cells: tuple[Cell, ...]


_HINTS = {
    "SSIM": "structural similarity; 1 is best",
    "MS-SSIM": "structural similarity at several scales; 1 is best",
    "Pearson": "Pearson correlation; 1 is best",
    "MAE": "mean absolute error; 0 is best",
    "PSNR": "peak signal-to-noise ratio in dB, peak: range of the reference",
    "FRC 0.5": "cycles per pixel where the ring correlation falls below 0.5, and the half-period",
    "FRC 1/7": "cycles per pixel where the ring correlation falls below 1/7, and the half-period",
    "PSD": "root mean square error of the logarithmic power spectrum in dB, and the mean; 0 is best",
}


def summary_columns() -> list[Column]:
    """Columns after the names and the parity, in the order of `Line.cells`."""
    columns = [
        Column(head, group, head == _HEADS[0], _HINTS[head]) for group in _QUANTITIES for head in _HEADS
    ]
    return [*columns, Column("ms", "", True, "milliseconds per pattern, stitching not included")]


def summary_lines(evaluation: Evaluation) -> list[Line]:
    """One line per row and scan."""
    return [
        _line(evaluation, row, scan, result)
        for row in evaluation.rows
        for scan, result in row.results.items()
    ]


def _line(evaluation: Evaluation, row: EvaluationRow, scan: str, result: ScanResult) -> Line:
    intervals = evaluation.intervals(row, scan)
    cells: list[Cell] = []
    for name in _QUANTITIES:
        metrics: MetricSet | None = getattr(result.comparison, name, None)
        cells += _cells(metrics, name, intervals)
    speed = result.ms_per_pattern
    parity = row.parity
    return Line(
        label=row.label,
        note=_note(row, result),
        scan=scan,
        collapsed=result.collapsed,
        parity=Cell(_UNDEFINED)
        if parity is None
        else Cell(f"{parity.max_relative_error:.1e}", sort=parity.max_relative_error),
        cells=(*cells, Cell(f"{speed:.2f}", sort=speed, starts=True)),
    )


def _note(row: EvaluationRow, result: ScanResult) -> str:
    several = (
        "" if row.contract is None or row.contract.channels == 1 else f"{row.contract.channels} patterns"
    )
    return ", ".join(filter(None, (several, "synchronised" if result.synchronised else "")))


def _cells(metrics: MetricSet | None, name: str, intervals: dict[str, Interval]) -> list[Cell]:
    if metrics is None:
        return [Cell(_UNDEFINED, starts=head == _HEADS[0]) for head in _HEADS]

    def number(metric: str, digits: int = 3, starts: bool = False) -> Cell:
        value: float | None = getattr(metrics, metric)
        if value is None:
            return Cell(_UNDEFINED, starts=starts)
        small = ""
        if f"{name}_{metric}" in intervals:
            small = "–".join(f"{end:.{digits}f}" for end in intervals[f"{name}_{metric}"])
        return Cell(f"{value:.{digits}f}", small, value, starts)

    return [
        number("ssim", starts=True),
        number("ms_ssim"),
        number("pearson"),
        number("mae"),
        number("psnr", 1),
        _cutoff(metrics, "half"),
        _cutoff(metrics, "seventh"),
        _power(metrics),
    ]


def _cutoff(metrics: MetricSet, threshold: str) -> Cell:
    frc = metrics.frc
    if frc is None:
        return Cell(_UNDEFINED)
    value: float | None = getattr(frc, f"cutoff_{threshold}")
    if value is None:
        return Cell("never", sort=math.inf)
    pixels: float | None = getattr(frc.half_period_px, threshold)
    metres: float | None = None if frc.half_period_m is None else getattr(frc.half_period_m, threshold)
    small = "" if pixels is None else f"{pixels:.2f} px"
    return Cell(f"{value:.3f}", small if metres is None else f"{1e9 * metres:.3g} nm", value)


def _power(metrics: MetricSet) -> Cell:
    psd = metrics.psd
    if psd is None or psd.log_error_db is None:
        return Cell(_UNDEFINED)
    return Cell(f"{psd.log_error_db:.1f}", f"{psd.bias_db:+.1f}".replace("-", "−"), psd.log_error_db)
