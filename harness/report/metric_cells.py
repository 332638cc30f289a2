"""Cells of the comparison tables: each metric of a result as text, with its interval and a number to sort by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ptychonnx.harness.evaluation.results import EvaluationRow, ScanResult
from ptychonnx.harness.metrics.bootstrap import Interval
from ptychonnx.harness.metrics.comparison import MetricSet

__all__ = [
    "HEADINGS",
    "QUANTITIES",
    "UNDEFINED",
    "Cell",
    "metric_cells",
    "misfit_cells",
    "parity_cell",
    "speed_cell",
]

QUANTITIES = ("amplitude", "phase")
UNDEFINED = "–"
# Metric by heading, with the number of digits.
_NUMBERS = {
    "SSIM": ("ssim", 3),
    "MS-SSIM": ("ms_ssim", 3),
    "Pearson": ("pearson", 3),
    "MAE": ("mae", 3),
    "PSNR": ("psnr", 1),
}
_CUTOFFS = {"FRC 0.5": "half", "FRC 1/7": "seventh"}
HEADINGS = (*_NUMBERS, *_CUTOFFS, "PSD")


@dataclass(frozen=True)
class Cell:
    """Text of a cell, a second line in small print, and the number to sort by (None is last)."""

    text: str = UNDEFINED
    small: str = ""
    sort: float | None = None


def metric_cells(
    result: ScanResult, quantity: str, intervals: Mapping[str, Interval], mae_digits: int = 3
) -> dict[str, Cell]:
    """Cells of the amplitude or the phase, in the order of `HEADINGS`.

    The small print is the confidence interval, the half-period at an FRC cut-off, or the bias of the power spectrum.
    """
    metrics: MetricSet | None = getattr(result.comparison, quantity, None)
    if metrics is None:
        return dict.fromkeys(HEADINGS, Cell())
    cells = {}
    for heading, (metric, digits) in _NUMBERS.items():
        digits = mae_digits if metric == "mae" else digits
        interval = intervals.get(f"{quantity}_{metric}", ())
        cells[heading] = _number(getattr(metrics, metric), digits, interval)
    cells |= {heading: _cutoff(metrics, threshold) for heading, threshold in _CUTOFFS.items()}
    return cells | {"PSD": _power(metrics)}


def parity_cell(row: EvaluationRow, digits: int = 1) -> Cell:
    """Largest relative error of an artifact against its native network."""
    if row.parity is None:
        return Cell()
    return Cell(f"{row.parity.max_relative_error:.{digits}e}", sort=row.parity.max_relative_error)


def halves_cells(result: ScanResult) -> tuple[Cell, ...]:
    """Cut-off at 0.5 of two halves of the scan, for each quantity."""
    if result.halves is None:
        return (Cell(),) * len(QUANTITIES)
    return tuple(_cutoff(getattr(result.halves, quantity), "half") for quantity in QUANTITIES)


def misfit_cells(result: ScanResult) -> tuple[Cell, Cell]:
    """Forward misfit of all the light and of the scattered light; the verdict on both in small print at the second."""
    misfit = result.misfit
    if misfit is None:
        return Cell(), Cell()
    return (
        Cell(f"{misfit.value:.3f}", sort=misfit.value),
        Cell(f"{misfit.scattered:.3f}", misfit.verdict, misfit.scattered),
    )


def speed_cell(result: ScanResult) -> Cell:
    """Milliseconds per pattern."""
    if result.ms_per_pattern is None:
        return Cell()
    return Cell(f"{result.ms_per_pattern:.2f}", sort=result.ms_per_pattern)


def _number(value: float | None, digits: int, interval: tuple[float, ...]) -> Cell:
    if value is None:
        return Cell()
    return Cell(f"{value:.{digits}f}", "–".join(f"{end:.{digits}f}" for end in interval), value)


def _cutoff(metrics: MetricSet, threshold: str) -> Cell:
    frc = metrics.frc
    if frc is None:
        return Cell()
    value: float | None = getattr(frc, f"cutoff_{threshold}")
    if value is None:
        return Cell("never", sort=math.inf)
    pixels: float | None = getattr(frc.half_period_px, threshold)
    metres: float | None = getattr(frc.half_period_m, threshold, None)
    half_period = "" if pixels is None else f"{pixels:.2f} px"
    return Cell(f"{value:.3f}", half_period if metres is None else f"{1e9 * metres:.3g} nm", value)


def _power(metrics: MetricSet) -> Cell:
    psd = metrics.psd
    if psd is None or psd.log_error_db is None:
        return Cell()
    return Cell(f"{psd.log_error_db:.1f}", f"{psd.bias_db:+.1f}".replace("-", "−"), psd.log_error_db)
