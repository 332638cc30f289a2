"""Grid-lines study: simulate, train, export and evaluate any set of networks in one call.

Each step is a `ptychonnx` command in a process of its own: two frameworks in one process would compete for threads and
memory, and the list of commands is the recipe that the report prints. Without a GPU, two networks are trained at a
time, each on its own half of the cores: a training gains little from a second core.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import EnvironmentFailure, InputError, PtychonnxError, VerificationError
from ptychonnx.runtime.machine import available_cores
from ptychonnx.train.fitting import refuse_unused, settings_for
from ptychonnx.train.registry import Architecture, get_architecture

__all__ = ["StudyPlan", "plan_lines", "run_plan", "typed_options"]

_ERRORS: dict[int, type[PtychonnxError]] = {
    error.exit_code: error for error in (InputError, EnvironmentFailure)
}

_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

Command = tuple[str, ...]
Show = Callable[[str], None]


@dataclass(frozen=True)
class StudyPlan:
    """The commands of a study, without the leading `ptychonnx`, and the files that they write.

    * `simulation`, `evaluation`: the first and the last command.
    * `networks`: for each network the commands that train and export it.
    * `models`, `report`, `recipe`: files that the commands write; `recipe` is written by `run_plan`.
    """

    simulation: Command
    networks: tuple[tuple[Command, ...], ...]
    evaluation: Command
    models: tuple[Path, ...]
    report: Path
    recipe: Path

    @property
    def commands(self) -> tuple[Command, ...]:
        return (
            self.simulation,
            *(command for network in self.networks for command in network),
            self.evaluation,
        )


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

    Raises InputError if no architecture is given, one is unknown or given twice, or a setting is out of range
    or none of them has it.

    * `architectures`: names of architectures, in the order of the report.
    * `out`: folder for data, runs, models, report and recipe.
    * `simulate_options`, `train_options`, `evaluate_options`: further options of these commands.
    * `settings`: settings of network and training for every architecture that has them, instead of its own defaults.
    * `seed`: seed of the dataset and of every training.
    """
    if not architectures:
        raise InputError("study lines: no architecture given, expected at least one")
    if len(set(architectures)) != len(architectures):
        raise InputError(f"study lines: an architecture is given twice in {','.join(architectures)}")
    settings = {} if settings is None else settings
    labels = []
    chosen = [get_architecture(name) for name in architectures]
    # A setting is that of the networks that have it.
    refuse_unused(chosen[0], frozenset(settings).intersection(*(one.unused for one in chosen)))
    for architecture in chosen:
        network, _ = settings_for(architecture, settings)
        labels.append(architecture.run_label(network))
    data, models = out / "data", tuple(out / "models" / f"{label}.onnx" for label in labels)
    networks = tuple(
        (
            ("train", name, "--data", str(data), "--out", run, "--seed", str(seed), *typed, *train_options),
            ("export", run, "--out", str(model)),
        )
        for name, run, typed, model in zip(
            architectures,
            (str(out / "runs" / label) for label in labels),
            _arguments_of(settings, chosen),
            models,
            strict=True,
        )
    )
    report, recipe = out / "report", out / "recipe.sh"
    scan = str(data / "test.npz")
    options = ("--scan", scan, "--out", str(report), *evaluate_options, "--recipe", str(recipe))
    return StudyPlan(
        simulation=("simulate", "lines", "--out", str(data), "--seed", str(seed), *simulate_options),
        networks=networks,
        evaluation=("evaluate", *map(str, models), *options),
        models=models,
        report=report / "report.html",
        recipe=recipe,
    )


def _arguments_of(settings: Mapping[str, Any], architectures: Sequence[Architecture]) -> list[list[str]]:
    """For each architecture, the settings that it has, as arguments."""
    return [
        typed_options({name: value for name, value in settings.items() if name not in one.unused})
        for one in architectures
    ]


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


def run_plan(plan: StudyPlan, announce: Show, show: Show, *, at_once: int | None = None) -> None:
    """Write the recipe and run its commands.

    Raises InputError, EnvironmentFailure or VerificationError if a command ends with exit code 2, 3, or another that is
    not 0. Its output holds its own message.

    * `announce`: called with each command, as a user types it, before it is run.
    * `show`: called with the whole output of a command that does not run alone, when it ends. A command that runs alone
      writes to standard output and standard error itself.
    * `at_once`: networks that are trained at the same time; if None, two, or one on a single core or with a GPU.
    """
    write_text(plan.recipe, "\n".join(["set -e", *map(_typed, plan.commands), ""]))
    at_once = min(at_once or _trainings_at_once(), len(plan.networks))
    _run(plan.simulation, announce)
    if at_once == 1:
        for command in (command for network in plan.networks for command in network):
            _run(command, announce)
    else:
        _run_networks(plan.networks, announce, show, at_once)
    _run(plan.evaluation, announce)


def _run_networks(networks: Sequence[Sequence[Command]], announce: Show, show: Show, at_once: int) -> None:
    """Run the commands of several networks at the same time, each process on its own share of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    shares = [cores[first::at_once] or cores for first in range(at_once)]
    showing, failed = threading.Lock(), threading.Event()

    def run(network: Sequence[Command]) -> None:
        share = shares.pop()
        # Holds for this thread, and for the processes that it starts.
        os.sched_setaffinity(0, share)
        try:
            for command in network:
                if failed.is_set():
                    return
                with showing:
                    announce(_typed(command))
                done = _process(command, len(share))
                with showing:
                    show(done.stdout)
                _check(command, done.returncode)
        except PtychonnxError:
            failed.set()
            raise
        finally:
            shares.append(share)

    with ThreadPoolExecutor(at_once) as pool:
        for future in [pool.submit(run, network) for network in networks]:
            future.result()


def _run(command: Command, announce: Show) -> None:
    announce(_typed(command))
    _check(command, _process(command).returncode)


def _process(command: Command, threads: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; on a number of threads, with its output captured, if given."""
    environment, stdout, stderr = dict(os.environ), None, None
    if threads is not None:
        environment |= dict.fromkeys(_THREADS, str(threads))
        stdout, stderr = subprocess.PIPE, subprocess.STDOUT
    words = [sys.executable, "-m", "ptychonnx.harness.cli", *command]
    with subprocess.Popen(words, env=environment, stdout=stdout, stderr=stderr, text=True) as child:
        try:
            output, _ = child.communicate()
        except KeyboardInterrupt:
            # The terminal interrupts the command too, and `subprocess.run` would kill it before it has cleared up.
            child.wait()
            raise
    return subprocess.CompletedProcess(words, child.returncode, output)


def _check(command: Command, code: int) -> None:
    if code != 0:
        error = _ERRORS.get(code, VerificationError)
        raise error(f"the study stopped with exit code {code} at: {_typed(command)}")


def _trainings_at_once() -> int:
    """Two, unless there is one core, or a GPU, whose memory TensorFlow takes as a whole."""
    if not hasattr(os, "sched_getaffinity") or Path("/dev/nvidiactl").exists():
        return 1
    return min(2, available_cores())


def _typed(command: Command) -> str:
    return shlex.join(["ptychonnx", *command])
