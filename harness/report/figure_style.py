"""Style that all figures share. Figures never use the global state of matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "DASHES", "as_png", "blank_figure", "legend_below", "line_style"]

# The palette of Okabe and Ito, which colour-blind people can distinguish, with line styles for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
_DPI = 150


def line_style(number: int) -> dict[str, Any]:
    """Colour, dashes and width of the line of a row, for `Axes.plot`."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "linewidth": 1.6,
    }


def blank_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """An empty white figure; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def legend_below(figure: Figure, lines: dict[str, Any], columns: int) -> None:
    """A legend below the axes, with the lines by name in rows of about equal length, at most `columns` wide."""
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="lower center" if figure.get_layout_engine() is None else "outside lower center",
        ncols=-(-len(lines) // -(-len(lines) // columns)),
        frameon=False,
        fontsize=9,
    )


def _forbid_mathematics(figure: Figure) -> None:
    """Draw names of files and labels as they are; matplotlib reads text between dollar signs as mathematics."""
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        if (legend := axes.get_legend()) is not None:
            texts += legend.get_texts()
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    for text in texts:
        text.set_parse_math(False)


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file; equal figures are equal bytes."""
    _forbid_mathematics(figure)
    stream = io.BytesIO()
    # matplotlib would write its version into the file.
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()
