"""Report page: one HTML file that needs neither a network nor other files."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ptychonnx.harness.metrics.comparison import COLLAPSED_CONTRAST, COLLAPSED_PEARSON
from ptychonnx.harness.report.evaluation_figures import draw_curves, draw_misfits, panels_of
from ptychonnx.harness.report.page_images import image_strip
from ptychonnx.harness.report.page_template import render
from ptychonnx.harness.report.quantity_images import quantity_images
from ptychonnx.harness.report.summary_table import summary_columns, summary_lines

if TYPE_CHECKING:
    from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanSummary
    from ptychonnx.harness.metrics.bootstrap import Confidence

__all__ = ["render_page"]

_UNDEFINED = "–"
_JUDGED = [
    f"{quantity}_{metric}"
    for quantity in ("amplitude", "phase")
    for metric in ("ssim", "pearson", "mae", "psnr")
]
_CURVES = {
    "frc": (
        "Fourier ring correlation with the reference: the detail up to which the two agree. Dotted: thresholds of 0.5 "
        "and 1/7; grey: twice the standard deviation of unrelated images (2σ)."
    ),
    "halves": (
        "Fourier ring correlation of two interleaved halves of the scan, each reconstructed alone, which needs no "
        "reference: the detail that the data support. What a method adds to every image is in both halves, so "
        "agreement does not prove that the object is right."
    ),
    "psd": (
        "Radially averaged power spectral density: the contrast at each frequency, whether right or wrong. Below the "
        "reference, detail is missing; above it, there is noise."
    ),
}


def render_page(
    evaluation: Evaluation,
    title: str = "Comparison of reconstructions",
    figures: Mapping[str, bytes] | None = None,
) -> str:
    """HTML of the report page.

    * `evaluation`: results to show; its `commands` are printed as the way to reproduce it.
    * `title`: title of the page.
    * `figures`: figures of the evaluation by name, of which curves and maps of the misfit are embedded; drawn here if
      None.
    """
    if figures is None:
        figures = draw_misfits(evaluation) | draw_curves(evaluation)
    filters: dict[str, Callable[..., Any]] = {
        "number": _number,
        "contract": _contract,
        "pairs": _pairs,
        "scale": "{:.3g}".format,
    }
    return render(
        "report.html.j2",
        filters,
        title=title,
        evaluation=evaluation,
        columns=summary_columns(evaluation),
        lines=summary_lines(evaluation),
        infinity=math.inf,
        images=[(scan, _strips(evaluation, scan)) for scan in evaluation.scans],
        curves=[
            (name, base64.b64encode(image).decode("ascii"), _CURVES[kind])
            for name, image in figures.items()
            if (kind := name.split("_")[0]) in _CURVES
        ],
        misfits=[
            (name, base64.b64encode(image).decode("ascii"))
            for name, image in figures.items()
            if name.startswith("misfit")
        ],
        collapsed=[row.label for row in evaluation.rows if row.collapsed],
        thresholds={"contrast": COLLAPSED_CONTRAST, "pearson": COLLAPSED_PEARSON},
        uncompared=[scan.name for scan in evaluation.scans if scan.reference is None],
    )


def _strips(evaluation: Evaluation, scan: ScanSummary) -> list[Any]:
    panels = panels_of(evaluation.rows, scan)
    return [image_strip(quantity) for quantity in quantity_images(scan.reference, scan.region, panels)]


def _number(value: float | None, digits: int = 3) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}"


def _pairs(confidence: Confidence) -> list[dict[str, Any]]:
    """Each pair of labels once, with the interval of the difference and the verdict for each metric."""
    rows = []
    for first, second in itertools.combinations(confidence.intervals, 2):
        cells = []
        for metric in _JUDGED:
            interval = confidence.differences[first][second].get(metric)
            if interval is None:
                cells.append({"text": _UNDEFINED, "verdict": ""})
                continue
            verdict = ""
            if confidence.differs(first, second, metric):
                is_less_better = metric.endswith("mae")
                verdict = "better" if (interval[0] > 0) != is_less_better else "worse"
            digits = 1 if metric.endswith("psnr") else 3
            text = " … ".join(f"{value:+.{digits}f}".replace("-", "−") for value in interval)
            cells.append({"text": text, "verdict": verdict})
        rows.append({"first": first, "second": second, "cells": cells})
    return rows


def _contract(row: EvaluationRow) -> str:
    return "" if row.contract is None else json.dumps(row.contract.model_dump(mode="json"), indent=2)
