"""The comparison as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import json
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from harness.metrics.comparison import COLLAPSED_CONTRAST, COLLAPSED_PEARSON, MetricSet

if TYPE_CHECKING:
    from harness.report.results import Evaluation, Row

__all__ = ["render_page"]

_UNDEFINED = "–"
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
    environment.filters |= {"number": _number, "cutoff": _cutoff, "base64": _base64, "contract": _contract}
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


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _contract(row: Row) -> str:
    return json.dumps(row.contract.model_dump(mode="json"), indent=2)
