"""How networks bear what they were not trained for: the evaluation of every condition, gathered.

Nothing is measured here: `evaluation.evaluate` judges each network under each condition, with a report of its own for
each axis.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.simulate.conditions import AXES, NOMINAL, Axis, Condition, conditions
from ptychonnx.harness.study.robustness_figure import Curves, levels_figure
from ptychonnx.runtime.atomic import atomic_path, write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.model import DEFAULT_BATCH
from ptychonnx.runtime.inference.session import Session
from ptychonnx.runtime.scan import Scan

__all__ = ["Score", "robustness"]

_VERSION = 1


@dataclass(frozen=True)
class Score:
    """What one network gave under one condition; None where a metric is not defined."""

    amplitude_ssim: float | None
    amplitude_pearson: float | None
    phase_ssim: float | None
    phase_pearson: float | None
    collapsed: bool


Scores = dict[str, dict[str, Score]]
"""By label of the network, then by name of the condition."""


def robustness(
    artifacts: Sequence[Path],
    base: Scan,
    out: Path,
    *,
    seed: int = 0,
    provider: str = "auto",
    batch: int = DEFAULT_BATCH,
    announce: Callable[[str], None] = lambda axis: None,
) -> Scores:
    """Judge each network under each condition; write `robustness.json`, `.png` and `.md`, and a report for each axis.

    Parameters
    ----------
    artifacts
        ONNX files with a contract.
    base
        See `conditions.conditions`; its probe should be the one that the networks were trained with.
    announce
        Called with the name of each axis before its networks run.

    Raises
    ------
    InputError
        If an artifact cannot be used, the scan does not fit it, or the scan lacks what the conditions need.
    """
    if not artifacts:
        raise InputError("study robustness: no artifact given, expected one at least")
    sessions = [Session(Path(each), provider) for each in artifacts]
    for session in sessions:
        session.check_scan(base)
    made = conditions(base, seed)
    scores: Scores = {}
    notes: dict[str, list[str]] = {}
    for name in (NOMINAL, *(axis.name for axis in AXES)):
        announce(name)
        scans = [condition.scan for condition in made if condition.axis == name]
        for row in evaluate(sessions, scans, out / name, provider=provider, batch=batch).rows:
            for scan_name, result in row.results.items():
                compared = result.comparison
                if compared is None:  # every condition brings its object
                    raise InputError(f"{scan_name}: was not compared")
                scores.setdefault(row.label, {})[scan_name] = Score(
                    compared.amplitude.ssim,
                    compared.amplitude.pearson,
                    compared.phase.ssim,
                    compared.phase.pearson,
                    compared.collapsed,
                )
                if name == NOMINAL and result.notes:
                    notes[row.label] = list(result.notes)
    with atomic_path(out / "robustness.png") as partial:
        partial.write_bytes(levels_figure(_curves(scores, made)))
    write_text(out / "robustness.md", _tables(scores, made))
    write_text(out / "robustness.json", _document(scores, made, base, seed, notes))
    return scores


def _columns(made: Sequence[Condition], axis: Axis) -> list[tuple[str, str]]:
    """(heading, name of the condition), the nominal one where it belongs."""
    nominal, *varied = [
        (condition.heading, condition.scan.name)
        for condition in made
        if condition.axis in (NOMINAL, axis.name)
    ]
    return [*varied[: axis.below], nominal, *varied[axis.below :]]


def _curves(scores: Scores, made: Sequence[Condition]) -> list[Curves]:
    found = []
    for axis in AXES:
        columns = _columns(made, axis)
        found.append(
            Curves(
                axis.name,
                [heading for heading, _ in columns],
                {label: [row[name].amplitude_ssim for _, name in columns] for label, row in scores.items()},
                {label: [row[name].phase_ssim for _, name in columns] for label, row in scores.items()},
            )
        )
    return found


def _tables(scores: Scores, made: Sequence[Condition]) -> str:
    """One Markdown table an axis: SSIM of amplitude and of phase."""
    lines = ["SSIM of the amplitude / SSIM of the phase; *c*: collapsed.", ""]
    for axis in AXES:
        columns = _columns(made, axis)
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
    scores: Scores, made: Sequence[Condition], base: Scan, seed: int, notes: dict[str, list[str]]
) -> str:
    document = {
        "version": _VERSION,
        "scan": base.name,
        "patterns": len(base),
        "seed": seed,
        "axes": {axis.name: axis.meaning for axis in AXES},
        "conditions": [
            {"name": condition.scan.name, "axis": condition.axis, "level": condition.level}
            for condition in made
        ],
        "networks": {
            label: {name: asdict(score) for name, score in row.items()} for label, row in scores.items()
        },
        "notes": notes,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
