"""Write an evaluation into a folder. The only module of this package that uses `ptychonnx.harness.report`."""

from __future__ import annotations

from pathlib import Path

from ptychonnx.harness.evaluation.results import Evaluation
from ptychonnx.harness.report.evaluation_figures import draw_figures
from ptychonnx.harness.report.html_page import render_page
from ptychonnx.runtime.atomic import atomic_path, check_output, write_text
from ptychonnx.runtime.errors import InputError

__all__ = ["check_folder", "write_evaluation"]

# A small report with its figures.
_REPORT_BYTES = 2**19


def check_folder(out: Path) -> None:
    """Refuse a folder that cannot be written, before any work is done.

    Raises
    ------
    InputError
        If `out` exists and is not a folder, or cannot be created.
    EnvironmentFailure
        If the disk is full.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected a folder to write to")
    check_output(out / "metrics.json", _REPORT_BYTES)


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write the figures, `report.html` and, last, `metrics.json`; each file appears whole or not at all."""
    content, figures = evaluation.to_json(), draw_figures(evaluation)
    page = render_page(evaluation, figures=figures)
    for name, image in figures.items():
        with atomic_path(out / f"{name}.png") as partial:
            partial.write_bytes(image)
    write_text(out / "report.html", page)
    write_text(out / "metrics.json", content)
