"""Comparison table for the terminal."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from ptychonnx.harness.evaluation.results import Evaluation, ScanResult
from ptychonnx.harness.report.metric_cells import (
    UNDEFINED,
    metric_cells,
    misfit_cells,
    parity_cell,
    speed_cell,
)

__all__ = ["comparison_table"]

_FULL_WIDTH = 100
_SHORT_NAME = 19
# Headings of the columns after the names, and the width from which on they are shown. Longer names take the place of
# columns, since a name in two lines is hard to read.
_COLUMNS = (
    ("parity", 0),
    ("A\nSSIM", 0),
    ("A\nr", 0),
    ("A\nMAE", _FULL_WIDTH + 20),
    ("A\nPSNR", _FULL_WIDTH),
    ("P\nSSIM", 0),
    ("P\nr", 0),
    ("P\nMAE", _FULL_WIDTH + 20),
    ("A FRC\n0.5/1/7", _FULL_WIDTH),
    ("P FRC\n0.5/1/7", _FULL_WIDTH),
    ("misfit/\nscattered", 0),
    ("ms per\npattern", 0),
)


def comparison_table(evaluation: Evaluation, width: int = 120) -> Table:
    """Table of at most `width` characters with one line per row and scan; below 100 only the main metrics."""
    several = len(evaluation.scans) > 1
    full = width >= _FULL_WIDTH
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=(
            "A amplitude, P phase (rad), r Pearson; FRC: cycles per pixel at 0.5/1/7, never = not crossed; "
            "parity: largest relative error against the native network; misfit: of the patterns, and of their "
            "scattered light alone; – not defined"
            if full
            else "A amplitude, P phase, r Pearson; parity: largest relative error against the native network; "
            "misfit: of the patterns, and of their scattered light alone"
        ),
        caption_justify="left",
    )
    table.add_column("artifact", overflow="fold", min_width=12)
    if several:
        table.add_column("scan", overflow="fold", min_width=9, max_width=14)
    longest = max((len(row.label) for row in evaluation.rows), default=0)
    room = width - max(0, longest - _SHORT_NAME)
    kept = [index for index, (_, least) in enumerate(_COLUMNS) if room >= least]
    for index in kept:
        table.add_column(_COLUMNS[index][0], justify="right", no_wrap=True)
    for row in evaluation.rows:
        for number, (name, result) in enumerate(row.results.items()):
            is_first = number == 0
            head = [f"{row.label}\n{row.file}".strip() if is_first else "", *([name] if several else [])]
            if result.collapsed:
                # On its own line, because a column for it would narrow the names.
                head[-1] += "\nCOLLAPSED"
            cells = [
                parity_cell(row, 0).text if is_first else "",
                *_cells(result, " " if full and not several else "\n"),
            ]
            style = "red" if result.collapsed else ""
            table.add_row(*map(escape, head), *(cells[index] for index in kept), style=style)
    for label in evaluation.failures:
        table.add_row(escape(f"{label}\nFAILED"), style="red")
    return table


def _cells(result: ScanResult, separator: str) -> list[str]:
    amplitude, phase = (
        {head: cell.text for head, cell in metric_cells(result, quantity, {}).items()}
        for quantity in ("amplitude", "phase")
    )
    misfit, scattered = misfit_cells(result)
    both = misfit.text if result.misfit is None else f"{_short(misfit.text)}/{_short(scattered.text)}"
    return [
        *(amplitude[head] for head in ("SSIM", "Pearson", "MAE", "PSNR")),
        *(phase[head] for head in ("SSIM", "Pearson", "MAE")),
        _cutoffs(amplitude),
        _cutoffs(phase),
        f"{both}{separator}{scattered.small}".strip(),
        speed_cell(result).text,
    ]


def _cutoffs(texts: dict[str, str]) -> str:
    """Both cut-offs in short."""
    half, seventh = (_short(texts[head]) for head in ("FRC 0.5", "FRC 1/7"))
    return UNDEFINED if half == UNDEFINED else f"{half}/{seventh}"


def _short(number: str) -> str:
    """Without the zero before the point."""
    return number.removeprefix("0")
