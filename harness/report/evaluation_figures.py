"""All figures of an evaluation, as PNG files."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanSummary
from ptychonnx.harness.report.frequency_curves import frc_figure, psd_figure
from ptychonnx.harness.report.misfit_figure import misfit_figure
from ptychonnx.harness.report.object_figure import object_figure
from ptychonnx.harness.report.quantity_images import Panel, quantity_images

__all__ = ["draw_curves", "draw_figures", "draw_misfits", "is_figure", "panels_of"]

_FIGURE = re.compile(r"(reconstruction|comparison|errors|misfit|frc|psd|halves)(_\d+_[A-Za-z0-9-]*)?\.png")


def panels_of(rows: Sequence[EvaluationRow], scan: ScanSummary) -> list[Panel]:
    """The panels of one scan, in the order of the rows."""
    return [
        Panel(row.label, row.results[scan.name].object, row.results[scan.name].comparison) for row in rows
    ]


def draw_figures(evaluation: Evaluation) -> dict[str, bytes]:
    """PNG of each figure by name: what it shows, then number and name of the scan if there are several."""
    figures = {}
    for scan, suffix in _suffixes(evaluation):
        quantities = quantity_images(scan.reference, scan.region, panels_of(evaluation.rows, scan))
        first = "reconstruction" if scan.reference is None else "comparison"
        figures[f"{first}{suffix}"] = object_figure(quantities[:2], scan.name)
        if scan.reference is not None:
            figures[f"errors{suffix}"] = object_figure(quantities[2:], scan.name)
    return figures | draw_misfits(evaluation) | draw_curves(evaluation)


def is_figure(name: str) -> bool:
    """Whether a file has a name that `draw_figures` gives, for some evaluation."""
    return _FIGURE.fullmatch(name) is not None


def draw_misfits(evaluation: Evaluation) -> dict[str, bytes]:
    """The figures of `draw_figures` that map the forward misfit over a scan: ``misfit``."""
    figures = {}
    for scan, suffix in _suffixes(evaluation):
        misfits = {row.label: row.results[scan.name].misfit for row in evaluation.rows}
        known = {label: misfit for label, misfit in misfits.items() if misfit is not None}
        if known:
            figures[f"misfit{suffix}"] = misfit_figure(known, scan.name)
    return figures


def draw_curves(evaluation: Evaluation) -> dict[str, bytes]:
    """The figures of `draw_figures` that show a quantity against spatial frequency: ``frc``, ``psd``, ``halves``."""
    curves = {}
    for scan, suffix in _suffixes(evaluation):
        if scan.reference is not None:
            panels = panels_of(evaluation.rows, scan)
            curves[f"frc{suffix}"] = frc_figure(panels, scan.name)
            curves[f"psd{suffix}"] = psd_figure(panels, scan.name)
        results = [(row.label, row.results[scan.name]) for row in evaluation.rows]
        halves = [Panel(label, result.object, result.halves) for label, result in results if result.halves]
        if halves:
            curves[f"halves{suffix}"] = frc_figure(halves, f"{scan.name}: two halves")
    return curves


def _suffixes(evaluation: Evaluation) -> list[tuple[ScanSummary, str]]:
    """Each scan with the end of the names of its figures."""
    if len(evaluation.scans) == 1:
        return [(evaluation.scans[0], "")]
    return [
        (scan, f"_{number}_{re.sub(r'[^A-Za-z0-9]+', '-', scan.name).strip('-')}")
        for number, scan in enumerate(evaluation.scans, start=1)
    ]
