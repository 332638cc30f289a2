"""Templates of pages: each becomes one HTML file that needs neither a network nor other files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from ptychonnx.runtime.reconstruction.misfit import DOUBTFUL, GOOD, SCATTERED_DOUBTFUL, SCATTERED_GOOD

__all__ = ["render"]


def render(template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Fill in a template of this folder.

    All pages know their style sheet `style`, their `script`, and the thresholds of the misfit, `marks`.
    """
    style, script = Markup(_asset("report.css")), Markup(_asset("report.js"))
    marks = {
        "good": GOOD,
        "doubtful": DOUBTFUL,
        "scattered_good": SCATTERED_GOOD,
        "scattered_doubtful": SCATTERED_DOUBTFUL,
    }
    page = _compiled(template, tuple(filters.items()))
    return page.render(style=style, script=script, marks=marks, **values)


@cache
def _compiled(template: str, filters: tuple[tuple[str, Callable[..., Any]], ...]) -> Template:
    """A template, compiled once for the pages of many scans."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= dict(filters)
    return environment.from_string(_asset(template))


def _asset(name: str) -> str:
    return resources.files("ptychonnx.harness.report").joinpath(name).read_text(encoding="utf-8")
