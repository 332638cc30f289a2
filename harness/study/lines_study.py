"""Grid-lines study: simulate, train, export and evaluate any set of networks in one call.

Each step is a `ptychonnx` command in a process of its own: two frameworks in one process would compete for threads and
memory, and the list of commands is the recipe that the report prints.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import EnvironmentFailure, InputError, PtychonnxError, VerificationError
from ptychonnx.train.fitting import settings_for
from ptychonnx.train.registry import get_architecture

__all__ = ["StudyPlan", "plan_lines", "run_plan", "typed_options"]

_ERRORS: dict[int, type[PtychonnxError]] = {
    error.exit_code: error for error in (InputError, EnvironmentFailure)
}


@dataclass(frozen=True)
class StudyPlan:
    """The commands of a study, without the leading `ptychonnx`, and the files that they write."""

    commands: tuple[tuple[str, ...], ...]
    models: tuple[Path, ...]
    report: Path
    recipe: Path

    @property
    def lines(self) -> list[str]:
        """The commands as a user types them."""
        return [shlex.join(["ptychonnx", *command]) for command in self.commands]


def plan_lines(
    architectures: Sequence[str],
    out: Path,
    *,
    simulate_options: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    train_options: Sequence[str] = (),
    evaluate_options: Sequence[str] = (),
    seed: int = 0,
) -> StudyPlan:
    """Plan the commands of the lines study.

    Parameters
    ----------
    architectures
        Names of architectures, in the order of the report.
    out
        Folder for data, runs, models, report and recipe.
    simulate_options, train_options, evaluate_options
        Further options of these commands.
    settings
        Settings of network and training for every architecture, instead of its own defaults.
    seed
        Seed of the dataset and of every training.

    Raises
    ------
    InputError
        If no architecture is given, one is unknown or given twice, or a setting is out of range.
    """
    if not architectures:
        raise InputError("study lines: no architecture given, expected at least one")
    if len(set(architectures)) != len(architectures):
        raise InputError(f"study lines: an architecture is given twice in {','.join(architectures)}")
    settings = {} if settings is None else settings
    labels = []
    for name in architectures:
        architecture = get_architecture(name)
        network, _ = settings_for(architecture, settings)
        labels.append(architecture.run_label(network))
    typed = typed_options(settings)
    data, models = out / "data", tuple(out / "models" / f"{label}.onnx" for label in labels)
    commands = [("simulate", "lines", "--out", str(data), "--seed", str(seed), *simulate_options)]
    for name, label, model in zip(architectures, labels, models, strict=True):
        run = str(out / "runs" / label)
        commands.append(
            ("train", name, "--data", str(data), "--out", run, "--seed", str(seed), *typed, *train_options)
        )
        commands.append(("export", run, "--out", str(model)))
    report, recipe = out / "report", out / "recipe.sh"
    scan = str(data / "test.npz")
    options = ("--scan", scan, "--out", str(report), *evaluate_options, "--recipe", str(recipe))
    commands.append(("evaluate", *map(str, models), *options))
    return StudyPlan(tuple(commands), models, report / "report.html", recipe)


def typed_options(values: Mapping[str, Any]) -> list[str]:
    """Options as arguments of a command line."""
    words = []
    for name, value in values.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return words


def run_plan(plan: StudyPlan, announce: Callable[[str], None]) -> None:
    """Write the recipe and run its commands one after the other.

    Parameters
    ----------
    announce
        Called with each command, as a user types it, before it is run.

    Raises
    ------
    InputError, EnvironmentFailure, VerificationError
        If a command ends with exit code 2, 3, or another that is not 0. The command printed its own message.
    """
    write_text(plan.recipe, "\n".join(["set -e", *plan.lines, ""]))
    for command, line in zip(plan.commands, plan.lines, strict=True):
        announce(line)
        code = subprocess.run(
            [sys.executable, "-m", "ptychonnx.harness.cli", *command], check=False
        ).returncode
        if code != 0:
            error = _ERRORS.get(code, VerificationError)
            raise error(f"the study stopped with exit code {code} at: {line}")
