"""Write an evaluation into a folder. The only module of this package that uses `ptychonnx.harness.report`."""

from __future__ import annotations

from pathlib import Path

from ptychonnx.harness.evaluation.results import Evaluation
from ptychonnx.harness.report.evaluation_figures import draw_figures, is_figure
from ptychonnx.harness.report.html_page import render_page
from ptychonnx.runtime.atomic import check_output, check_updatable, updated_folder

__all__ = ["FILES", "check_folder", "write_evaluation"]

# Besides the figures.
FILES = ("report.html", "metrics.json")
# A small report with its figures.
_REPORT_BYTES = 2**19


def check_folder(out: Path) -> None:
    """Refuse a folder that cannot be written as one, before any work is done.

    Raises InputError if `out` is not a folder, holds folders, is the working folder, or cannot be created. Raises
    EnvironmentFailure if the disk is full.
    """
    check_updatable(out)
    check_output(out, _REPORT_BYTES)


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write the figures, `report.html` and `metrics.json`, which appear together.

    Figures of an earlier evaluation in the folder go; other files stay.
    """
    content, figures = evaluation.to_json(), draw_figures(evaluation)
    page = render_page(evaluation, figures=figures)
    with updated_folder(out) as folder:
        for earlier in filter(lambda file: is_figure(file.name), list(folder.iterdir())):
            earlier.unlink()
        files = {f"{name}.png": image for name, image in figures.items()}
        files |= {
            name: text.encode(errors="backslashreplace")
            for name, text in zip(FILES, (page, content), strict=True)
        }
        for name, data in files.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(data)
