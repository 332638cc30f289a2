"""Summary table of the page: columns and lines."""

from __future__ import annotations

from dataclasses import dataclass

from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanResult
from ptychonnx.harness.report.metric_cells import (
    HEADINGS,
    QUANTITIES,
    Cell,
    halves_cells,
    metric_cells,
    misfit_cells,
    parity_cell,
    speed_cell,
)

__all__ = ["Column", "Line", "summary_columns", "summary_lines"]

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


@dataclass(frozen=True)
class Column:
    """A column; `group` is its quantity, and `starts` marks the first column of a group."""

    head: str
    group: str
    starts: bool
    hint: str


@dataclass(frozen=True)
class Line:
    """Results of a row on one scan; `note` states what distinguishes it from others."""

    label: str
    note: str
    scan: str
    collapsed: bool
    parity: Cell
    cells: tuple[Cell, ...]


def summary_columns(evaluation: Evaluation) -> list[Column]:
    """Columns after the names and the parity, in the order of `Line.cells`."""
    columns = [
        Column(head, group, head == HEADINGS[0], _HINTS[head]) for group in QUANTITIES for head in HEADINGS
    ]
    if _has_halves(evaluation):
        hint = "cycles per pixel where the ring correlation of two halves of the scan falls below 0.5"
        columns += [
            Column(name[0].upper(), "two halves", name == QUANTITIES[0], f"{name}: {hint}")
            for name in QUANTITIES
        ]
    return [
        *columns,
        Column(
            "misfit",
            "",
            True,
            "how well object and probe explain the patterns, without a reference; 0 is best; small print: the same for "
            "the light scattered past the direct beam, and the verdict on both",
        ),
        Column("ms", "", False, "milliseconds per pattern, stitching not included"),
    ]


def summary_lines(evaluation: Evaluation) -> list[Line]:
    """One line per row and scan."""
    lines = []
    for row in evaluation.rows:
        for scan, result in row.results.items():
            intervals = evaluation.intervals(row, scan)
            cells = [cell for name in QUANTITIES for cell in metric_cells(result, name, intervals).values()]
            if _has_halves(evaluation):
                cells += halves_cells(result)
            misfit, scattered = misfit_cells(result)
            both = Cell(misfit.text, f"{scattered.text} {scattered.small}", misfit.sort)
            cells += [both if result.misfit else misfit, speed_cell(result)]
            lines.append(
                Line(row.label, _note(row, result), scan, result.collapsed, parity_cell(row), tuple(cells))
            )
    return lines


def _has_halves(evaluation: Evaluation) -> bool:
    return any(result.halves is not None for row in evaluation.rows for result in row.results.values())


def _note(row: EvaluationRow, result: ScanResult) -> str:
    channels = 1 if row.contract is None else row.contract.channels
    several = "" if channels == 1 else f"{channels} patterns"
    return ", ".join(
        filter(None, (row.file.strip("()"), several, "synchronised" if result.synchronised else ""))
    )
