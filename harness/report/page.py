"""The comparison as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import itertools
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.metrics.comparison import COLLAPSED_CONTRAST, COLLAPSED_PEARSON, MetricSet

if TYPE_CHECKING:
    from harness.metrics.confidence import Confidence
    from harness.report.results import Evaluation, Row

__all__ = ["render_page"]

_UNDEFINED = "–"
_JUDGED = [
    f"{quantity}_{metric}" for quantity in ("amplitude", "phase") for metric in ("ssim", "pearson", "mae")
]
_CAPTIONS = {
    "comparison": "Amplitude and phase. Scales are those of the reference; grey lies outside the region.",
    "reconstruction": "Amplitude and phase, each phase about its own mean angle. There is no reference.",
    "errors": "Magnitude of the errors, one scale for all. Phase differences are wrapped to ±π.",
    "frc": "Fourier ring correlation with the reference; dashed: thresholds of 0.5 and 1/7.",
}


def render_page(evaluation: Evaluation, title: str = "Comparison of reconstructions") -> str:
    """The page as text.

    Parameters
    ----------
    evaluation
        Its `figures` are embedded; its `commands` are printed as the way to reproduce it.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": _number,
        "cutoff": _cutoff,
        "base64": _base64,
        "contract": _contract,
        "spread": _spread,
        "pairs": _pairs,
    }
    source = resources.files("harness.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=title,
        evaluation=evaluation,
        collapsed=[row.label for row in evaluation.rows if row.collapsed],
        captions=_CAPTIONS,
        thresholds={"contrast": COLLAPSED_CONTRAST, "pearson": COLLAPSED_PEARSON},
        uncompared=[scan.name for scan in evaluation.scans if scan.reference is None],
    )


def _number(value: float | None, digits: int = 3) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}"


def _cutoff(metrics: MetricSet, which: str) -> str:
    if metrics.frc is None:
        return _UNDEFINED
    value: float | None = getattr(metrics.frc, which)
    return "never" if value is None else f"{value:.3f}"


def _spread(intervals: dict[str, tuple[float, float]], metric: str) -> Markup:
    """A small second line in a cell; nothing if the interval is not known."""
    if metric not in intervals:
        return Markup()
    low, high = intervals[metric]
    return Markup(" <small>{:.3f}–{:.3f}</small>").format(low, high)


def _pairs(found: Confidence) -> list[dict[str, Any]]:
    """Each pair once, with the interval of its difference and what it says for each metric."""
    rows = []
    for first, second in itertools.combinations(found.intervals, 2):
        cells = []
        for metric in _JUDGED:
            interval = found.differences[first][second].get(metric)
            if interval is None:
                cells.append({"text": _UNDEFINED, "verdict": ""})
                continue
            verdict = ""
            if found.differs(first, second, metric):
                is_less_better = metric.endswith("mae")
                verdict = "better" if (interval[0] > 0) != is_less_better else "worse"
            text = " … ".join(f"{value:+.3f}" for value in interval)
            cells.append({"text": text, "verdict": verdict})
        rows.append({"first": first, "second": second, "cells": cells})
    return rows


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _contract(row: Row) -> str:
    return json.dumps(row.contract.model_dump(mode="json"), indent=2)
