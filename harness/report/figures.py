"""Pictures of reconstructions beside their reference, of their errors, and of their ring correlations.

Every function returns the bytes of a PNG. Colour maps are perceptually uniform; a quantity has one scale in a
figure. Nothing touches matplotlib's global state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.metrics.comparison import Comparison, MetricSet
from harness.metrics.frc import HALF, SEVENTH
from harness.metrics.image import wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.report.results import Row, ScanSummary

__all__ = [
    "COLOURS",
    "DASHES",
    "Panel",
    "as_png",
    "blank_figure",
    "comparison_figure",
    "error_figure",
    "frc_figure",
    "panels_of",
    "reconstruction_figure",
]

# Okabe and Ito's palette, which the colour-blind can tell apart, with a line style each for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
_AMPLITUDE_MAP, _PHASE_MAP, _ERROR_MAP = "viridis", "cividis", "magma"
_OUTSIDE = "#d9d9d9"
_MAX_COLUMNS = 5
_PANEL_INCHES, _GAP_INCHES, _BAR_INCHES, _LINE_INCHES = 2.3, 0.08, 0.85, 0.17
_LONG_NAME = 28
_DPI = 150


@dataclass(frozen=True)
class Panel:
    """One object to draw: complex [rows, columns], with its metrics if it was compared."""

    title: str
    object: NDArray[np.complexfloating]
    comparison: Comparison | None = None


def panels_of(rows: Sequence[Row], scan: ScanSummary) -> list[Panel]:
    """The panels of one scan, in the order of the rows."""
    return [
        Panel(row.label, row.results[scan.name].object, row.results[scan.name].comparison) for row in rows
    ]


def comparison_figure(
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
    panels: Sequence[Panel],
    title: str = "",
) -> bytes:
    """Amplitude and phase of the reference and of every panel, the scales taken from the reference.

    Parameters
    ----------
    reference
        complex [rows, columns].
    region
        bool [rows, columns]; what lies outside is grey, and left out where it can be.
    """
    bounds = _bounds(region)
    centre = _mean_angle(reference, region)
    columns = [Panel("reference", reference), *panels]
    return _grid(
        [(panel.title, _captions(panel.comparison)) for panel in columns],
        [
            _Quantity(
                "amplitude",
                _AMPLITUDE_MAP,
                [_shown(np.abs(panel.object), region, bounds) for panel in columns],
                _limits([np.abs(reference)[region]]),
            ),
            _Quantity(
                "phase (rad)",
                _PHASE_MAP,
                [_shown(wrap(np.angle(panel.object) - centre), region, bounds) for panel in columns],
                _limits([wrap(np.angle(reference) - centre)[region]]),
            ),
        ],
        title,
    )


def reconstruction_figure(panels: Sequence[Panel], covered: NDArray[np.bool_], title: str = "") -> bytes:
    """Amplitude and phase of every panel where there is no reference; each phase about its own mean angle."""
    bounds = _bounds(covered)
    amplitudes = [np.abs(panel.object) for panel in panels]
    phases = [wrap(np.angle(panel.object) - _mean_angle(panel.object, covered)) for panel in panels]
    return _grid(
        [(panel.title, ("", "")) for panel in panels],
        [
            _Quantity(name, colours, [_shown(image, covered, bounds) for image in images], limits)
            for name, colours, images, limits in (
                ("amplitude", _AMPLITUDE_MAP, amplitudes, _limits([image[covered] for image in amplitudes])),
                ("phase (rad)", _PHASE_MAP, phases, _limits([image[covered] for image in phases])),
            )
        ],
        title,
    )


def error_figure(
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
    panels: Sequence[Panel],
    title: str = "",
) -> bytes:
    """Magnitude of the amplitude error and of the wrapped phase error of every panel, on one scale each."""
    bounds = _bounds(region)
    amplitude = [np.abs(np.abs(panel.object) - np.abs(reference)) for panel in panels]
    phase = [np.abs(wrap(np.angle(panel.object) - np.angle(reference))) for panel in panels]
    quantities = []
    for name, images in (("|amplitude error|", amplitude), ("|phase error| (rad)", phase)):
        top = _limits([image[region] for image in images])[1]
        quantities.append(
            _Quantity(name, _ERROR_MAP, [_shown(i, region, bounds) for i in images], (0.0, top))
        )
    captions = [
        (_value("MAE", panel.comparison.amplitude.mae), _value("MAE", panel.comparison.phase.mae))
        if panel.comparison
        else ("", "")
        for panel in panels
    ]
    return _grid([(p.title, c) for p, c in zip(panels, captions, strict=True)], quantities, title)


def frc_figure(panels: Sequence[Panel], title: str = "") -> bytes:
    """Ring correlation of amplitude and phase against spatial frequency, with both thresholds."""
    figure = blank_figure(9.0, 3.9, "constrained")
    lines: dict[str, Any] = {}
    for index, quantity in enumerate(("amplitude", "phase")):
        axes = figure.add_subplot(1, 2, index + 1)
        undefined = []
        for number, panel in enumerate(panels):
            metrics: MetricSet | None = getattr(panel.comparison, quantity, None)
            if metrics is None or metrics.frc is None:
                undefined.append(panel.title)
                continue
            (lines[panel.title],) = axes.plot(
                metrics.frc.frequency,
                metrics.frc.correlation,
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number % len(DASHES)],
                linewidth=1.6,
            )
        for threshold, name in ((HALF, "0.5"), (SEVENTH, "1/7")):
            axes.axhline(threshold, color="0.55", linewidth=0.8, linestyle=(0, (2, 2)))
            axes.annotate(name, (0.5, threshold), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set(
            xlim=(0, 0.5),
            ylim=(-0.25, 1.05),
            xlabel="spatial frequency (cycles per pixel)",
            ylabel="Fourier ring correlation" if index == 0 else None,
            title=quantity,
        )
        axes.spines[["top", "right"]].set_visible(False)
        if undefined:
            names = "\n".join(undefined)
            axes.text(0.01, -0.22, f"not defined:\n{names}", color="0.4", fontsize=8, va="bottom")
    if lines:
        figure.legend(
            lines.values(),
            lines.keys(),
            loc="outside lower center",
            ncols=min(len(lines), 5),
            frameon=False,
            fontsize=9,
        )
    if title:
        figure.suptitle(title, fontsize=11)
    return as_png(figure)


@dataclass(frozen=True)
class _Quantity:
    name: str
    colours: str
    images: list[NDArray[np.floating]]
    limits: tuple[float, float]


def _grid(
    columns: Sequence[tuple[str, tuple[str, str]]], quantities: Sequence[_Quantity], title: str
) -> bytes:
    """A column an object, a line a quantity, with one colour bar a line; wrapped after `_MAX_COLUMNS`.

    Every length is known beforehand, so nothing is left to a layout engine, which takes seconds for many
    panels.
    """
    blocks = math.ceil(len(columns) / _MAX_COLUMNS)
    across = min(len(columns), _MAX_COLUMNS)
    rows, breadth = quantities[0].images[0].shape
    panel = _PANEL_INCHES * min(max(rows / breadth, 0.4), 2.0)
    heads = [_LINE_INCHES * (2.4 if number == 0 else 1.4) for number in range(len(quantities))]
    width = _GAP_INCHES + across * (_PANEL_INCHES + _GAP_INCHES) + _BAR_INCHES
    top = 1.8 * _LINE_INCHES if title else 0.0
    height = top + blocks * (sum(heads) + len(quantities) * (panel + _GAP_INCHES))
    figure = blank_figure(width, height)

    def place(left: float, above: float, wide: float) -> Any:
        """Axes whose upper left corner lies at (left, above) inches from that of the figure."""
        return figure.add_axes((left / width, 1 - (above + panel) / height, wide / width, panel / height))

    if title:
        figure.text(0.5, 1 - 0.3 * top / height, title, ha="center", va="top", fontsize=11)
    above = top
    for block in range(blocks):
        chosen = range(block * _MAX_COLUMNS, min((block + 1) * _MAX_COLUMNS, len(columns)))
        for number, quantity in enumerate(quantities):
            above += heads[number]
            left = _GAP_INCHES
            for index in chosen:
                name, captions = columns[index]
                axes = place(left, above, _PANEL_INCHES)
                drawn = axes.imshow(
                    quantity.images[index],
                    cmap=_colour_map(quantity.colours),
                    vmin=quantity.limits[0],
                    vmax=quantity.limits[1],
                    interpolation="nearest",
                )
                axes.set_axis_off()
                caption = captions[number] or " "
                # A long name must not run into its neighbour.
                small = 9 if len(name) <= _LONG_NAME else 9 * _LONG_NAME / len(name)
                axes.set_title(f"{name}\n{caption}" if number == 0 else caption, fontsize=small, pad=4)
                left += _PANEL_INCHES + _GAP_INCHES
            bar = figure.colorbar(drawn, cax=place(left, above, 0.12))
            bar.set_label(quantity.name, fontsize=9)
            bar.ax.tick_params(labelsize=8)
            above += panel + _GAP_INCHES
    return as_png(figure)


def _colour_map(name: str) -> Any:
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=_OUTSIDE)


def blank_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def as_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Without a software name and a date, equal figures are equal files.
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def _bounds(region: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest rectangle that holds the region."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _shown(
    image: NDArray[np.floating], region: NDArray[np.bool_], bounds: tuple[slice, slice]
) -> NDArray[np.floating]:
    return np.where(region, image, np.nan)[bounds]


def _mean_angle(image: NDArray[np.complexfloating], region: NDArray[np.bool_]) -> float:
    values = image[region]
    values = values[np.isfinite(values)]
    return float(np.angle(np.mean(np.exp(1j * np.angle(values))))) if values.size else 0.0


def _limits(values: Sequence[NDArray[np.floating]]) -> tuple[float, float]:
    """Scale of a quantity: all but the outermost 0.2 %, and never of no extent."""
    finite = np.concatenate([part[np.isfinite(part)] for part in values])
    if not finite.size:
        return (0.0, 1.0)
    low, high = (float(value) for value in np.percentile(finite, (0.2, 99.8)))
    room = max(1e-3, 1e-3 * abs(low)) if high - low < 1e-6 else 0.0
    return (low - room, high + room)


def _captions(comparison: Comparison | None) -> tuple[str, str]:
    if comparison is None:
        return ("", "")
    return (_caption(comparison.amplitude), _caption(comparison.phase))


def _caption(metrics: MetricSet) -> str:
    if metrics.collapsed:
        return "COLLAPSED"
    return ", ".join(part for part in (_value("SSIM", metrics.ssim), _value("r", metrics.pearson)) if part)


def _value(name: str, value: float | None) -> str:
    return "" if value is None else f"{name} {value:.3f}"
