"""Robustness of networks to conditions that they were not trained for: the evaluations under all conditions, gathered.

`ptychonnx.harness.evaluation.evaluate` judges each network under each condition, with one report per axis.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.evaluation.plan import artifacts_of_size
from ptychonnx.harness.metrics.comparison import Comparison
from ptychonnx.harness.report.figure_style import as_png, blank_figure, legend_below, line_style
from ptychonnx.harness.simulate.conditions import AXES, NOMINAL, Axis, Condition, simulate_conditions
from ptychonnx.runtime.atomic import atomic_path, write_text
from ptychonnx.runtime.errors import InputError, InternalError, VerificationError
from ptychonnx.runtime.inference import DEFAULT_BATCH, Session
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["Score", "robustness", "robustness_figure"]

Values = Mapping[str, Sequence[float | None]]
_VERSION = 1


@dataclass(frozen=True)
class Score:
    """Metrics of one network under one condition; None where a metric is not defined."""

    amplitude_ssim: float | None
    amplitude_pearson: float | None
    phase_ssim: float | None
    phase_pearson: float | None
    collapsed: bool


Scores = dict[str, dict[str, Score]]
"""Scores by label of the network, then by name of the condition."""


def robustness(
    artifacts: Sequence[Path | str],
    base: Scan,
    out: Path | str,
    *,
    seed: int = 0,
    provider: str = "auto",
    batch: int = DEFAULT_BATCH,
    progress: Progress = SILENT,
) -> Scores:
    """Evaluate each network under each condition of measurement.

    Writes `robustness.json`, `robustness.png`, `robustness.md`, and a folder with a report for each axis.

    Raises InputError if an artifact cannot be used, the scan does not fit it, or the scan lacks what the conditions
    need.

    * `artifacts`: ONNX files with a contract.
    * `base`: scan that the conditions are simulated from, see `simulate_conditions`; its probe should be the one that
      the networks were trained with.
    * `out`: folder to write to.
    * `seed`: seed of objects, noise and errors.
    * `provider`, `batch`: see `ptychonnx.harness.evaluation.evaluate.evaluate`.
    * `progress`: receives a stage for each network and condition.
    """
    if not artifacts:
        raise InputError("study robustness: no artifact given, expected at least one")
    out = Path(out)
    fitting = artifacts_of_size(artifacts, {base.size})
    sessions = [Session(Path(artifact), provider) for artifact in fitting]
    for session in sessions:
        session.check_scan(base)
    conditions = simulate_conditions(base, seed)
    scores: Scores = {}
    notes: dict[str, list[str]] = {}
    for axis in (NOMINAL, *(axis.name for axis in AXES)):
        scans = [condition.scan for condition in conditions if condition.axis == axis]
        evaluation = evaluate(sessions, scans, out / axis, provider=provider, batch=batch, progress=progress)
        if evaluation.failures:
            raise VerificationError(next(iter(evaluation.failures.values())))
        for row in evaluation.rows:
            for scan_name, result in row.results.items():
                if result.comparison is None:
                    raise InternalError(
                        f"{scan_name}: a simulated condition was not compared with its object"
                    )
                scores.setdefault(row.label, {})[scan_name] = _score(result.comparison)
                if axis == NOMINAL and result.notes:
                    notes[row.label] = list(result.notes)
    with atomic_path(out / "robustness.png") as partial:
        partial.write_bytes(_figure(scores, conditions))
    write_text(out / "robustness.md", _tables(scores, conditions))
    write_text(out / "robustness.json", _document(scores, conditions, base, seed, notes))
    return scores


def _score(comparison: Comparison) -> Score:
    amplitude, phase = comparison.amplitude, comparison.phase
    return Score(amplitude.ssim, amplitude.pearson, phase.ssim, phase.pearson, comparison.collapsed)


def _columns(conditions: Sequence[Condition], axis: Axis) -> list[tuple[str, str]]:
    """(heading, name of the condition), with the nominal condition at its place on the axis."""
    nominal, *varied = [
        (condition.heading, condition.scan.name)
        for condition in conditions
        if condition.axis in (NOMINAL, axis.name)
    ]
    return [*varied[: axis.below], nominal, *varied[axis.below :]]


def _figure(scores: Scores, conditions: Sequence[Condition]) -> bytes:
    columns = {axis.title: _columns(conditions, axis) for axis in AXES}
    curves = {
        (axis, quantity): {
            label: [getattr(row[name], f"{quantity}_ssim") for _, name in names]
            for label, row in scores.items()
        }
        for axis, names in columns.items()
        for quantity in ("amplitude", "phase")
    }
    headings = {axis: [heading for heading, _ in names] for axis, names in columns.items()}
    return robustness_figure(headings, curves)


def _tables(scores: Scores, conditions: Sequence[Condition]) -> str:
    """One Markdown table per axis: SSIM of amplitude and of phase."""
    lines = ["SSIM of the amplitude / SSIM of the phase; *c*: collapsed.", ""]
    for axis in AXES:
        columns = _columns(conditions, axis)
        lines += [f"**{axis.name}**: {axis.meaning}", ""]
        lines.append("| network | " + " | ".join(heading for heading, _ in columns) + " |")
        lines.append("|---" * (len(columns) + 1) + "|")
        for label, row in scores.items():
            cells = " | ".join(_cell(row[name]) for _, name in columns)
            lines.append(f"| `{label}` | {cells} |")
        lines.append("")
    return "\n".join(lines)


def _cell(score: Score) -> str:
    values = (score.amplitude_ssim, score.phase_ssim)
    text = " / ".join("–" if value is None else f"{value:.2f}" for value in values)
    return f"{text} *c*" if score.collapsed else text


def _document(
    scores: Scores, conditions: Sequence[Condition], base: Scan, seed: int, notes: dict[str, list[str]]
) -> str:
    document = {
        "version": _VERSION,
        "scan": base.name,
        "patterns": len(base),
        "seed": seed,
        "axes": {axis.name: axis.meaning for axis in AXES},
        "conditions": [
            {"name": condition.scan.name, "axis": condition.axis, "level": condition.level}
            for condition in conditions
        ],
        "networks": {
            label: {name: asdict(score) for name, score in row.items()} for label, row in scores.items()
        },
        "notes": notes,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def robustness_figure(
    headings: Mapping[str, Sequence[str]], curves: Mapping[tuple[str, str], Values]
) -> bytes:
    """PNG with one column per axis; levels are drawn at equal distances, since they have no common unit.

    * `headings`: levels of each axis as text, by title of the axis.
    * `curves`: SSIM at each level by label of the network, None where not defined; by axis and quantity (``amplitude``,
      ``phase``).
    """
    widths = [max(len(levels), 3) for levels in headings.values()]
    figure = blank_figure(2 + 0.5 * sum(widths), 5.6, "constrained")
    grid = figure.subplots(2, len(widths), sharey=True, squeeze=False, width_ratios=widths)
    for column, (axis, levels) in enumerate(headings.items()):
        for axes, quantity in zip(grid[:, column], ("amplitude", "phase"), strict=True):
            for number, (label, values) in enumerate(curves[axis, quantity].items()):
                heights = [np.nan if value is None else value for value in values]
                axes.plot(heights, label=label, marker=".", **line_style(number))
            axes.set_xticks(range(len(levels)), levels, rotation=60, fontsize=8)
            axes.grid(alpha=0.3)
            axes.set_ylim(-0.02, 1.0)
            if column == 0:
                axes.set_ylabel(f"SSIM of the {quantity}")
        grid[0, column].set_title(axis, fontsize=10)
        grid[0, column].tick_params(labelbottom=False)
    lines, labels = grid[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, lines, strict=True)), 8)
    return as_png(figure)
