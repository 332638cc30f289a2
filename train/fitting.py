"""From a scan to a finished run folder, in whichever framework the architecture belongs to."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import checked
from ptychonnx.train.checkpoints import Progress
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.dataset import TrainingData, prepare
from ptychonnx.train.fine_tuning import Source
from ptychonnx.train.initial_retrieval import FirstGuess, first_guess_of
from ptychonnx.train.registry import Architecture, import_framework_module
from ptychonnx.train.run import (
    HELD_OUT_NAME,
    INITIAL_NAME,
    RunRecord,
    fingerprint,
    hash_of,
    installed_versions,
    write_run,
)
from ptychonnx.train.scan_checks import without_dark_patterns
from ptychonnx.train.training_plan import RunPlan
from ptychonnx.train.unfinished_run import (
    finished_already,
    locked,
    open_unfinished,
    publish_run,
    unfinished_folder,
)

__all__ = ["Fitted", "Job", "OnStep", "helps_another_process", "settings_for", "train"]

OnStep = Callable[[int, int], None]
"""Called with the optimiser steps done and those there will be."""


@dataclass(frozen=True)
class Job:
    """What a framework's `fit` is asked to do.

    Attributes
    ----------
    folder
        Of the unfinished run; the checkpoint and ``logs/`` go there.
    progress
        What was trained before, and who keeps every epoch.
    fine_tuned
        Whether to start from the checkpoint in ``initial/`` instead of the seed's weights.
    """

    architecture: Architecture
    network: NetworkConfig
    training: TrainingConfig
    data: TrainingData
    folder: Path
    progress: Progress
    fine_tuned: bool
    on_step: OnStep

    @property
    def initial(self) -> Path | None:
        """Folder of the checkpoint to start from."""
        return self.folder / INITIAL_NAME if self.fine_tuned else None

    def first_guess(self) -> FirstGuess:
        """What the network starts from."""
        return first_guess_of(self.network, self.data.probe, self.data.scale, self.data.mask)

    def require_shares(self) -> None:
        """Refuse a step that the devices cannot share equally.

        Raises
        ------
        InputError
            If its groups are no multiple of the devices.
        """
        groups, devices = self.data.groups_in_step(self.training), self.training.devices
        if groups % devices:
            raise InputError(
                f"--devices {devices}: a step has {groups} groups of {self.data.train.shape[1]} patterns, "
                f"expected a multiple of {devices}"
            )

    def log_folder(self) -> Path:
        """A new folder for the framework's loggers, which would overwrite what they wrote before a kill."""
        return self.folder / "logs" / f"from_epoch_{self.progress.done + 1:04d}"

    def tensorboard(self) -> bool:
        """Whether to log for TensorBoard.

        Raises
        ------
        InputError
            If that was asked for, and it is not installed.
        """
        wanted = self.training.tensorboard
        installed = find_spec("tensorboard") is not None
        if wanted and not installed:
            raise InputError('--tensorboard: is not installed: pip install "ptychonnx[tensorboard]"')
        return installed if wanted is None else wanted


@dataclass(frozen=True)
class Fitted:
    """What a framework's `fit` gives back, next to the checkpoint of the best epoch that it wrote."""

    initial_tensors: dict[str, str]
    trained_tensors: dict[str, str]
    parameters: int
    spectral_operator: str | None
    packages: tuple[str, ...]


def settings_for(
    architecture: Architecture, values: Mapping[str, Any]
) -> tuple[NetworkConfig, TrainingConfig]:
    """Settings from a user's values, over the architecture's defaults, over the general ones.

    Raises
    ------
    InputError
        On an unknown setting or a value out of range.
    """
    merged = {**architecture.defaults, **values}
    names = {field.name for field in fields(TrainingConfig)}
    training = {name: value for name, value in merged.items() if name in names}
    network = {name: value for name, value in merged.items() if name not in names}
    return checked(NetworkConfig, network), checked(TrainingConfig, training)


def train(
    scan: Scan,
    architecture: Architecture,
    network: NetworkConfig,
    training: TrainingConfig,
    out: Path,
    on_step: OnStep = lambda done, total: None,
    *,
    source: Source | None = None,
    resume: bool = False,
    files: Mapping[str, str] | None = None,
    labels: NDArray[np.complex64] | None = None,
) -> RunRecord:
    """Train one network and leave a run folder (see `train.run`). An earlier run there is replaced at the end.

    Until then everything is in ``<out>.unfinished``, and stays there if training is interrupted.

    Parameters
    ----------
    source
        Run whose weights to start from, instead of the seed's.
    resume
        Go on with an interrupted training if there is one; the result is that of an uninterrupted one. A run
        that is finished is left as it is.
    files
        Text files to leave in the run folder, by name.
    labels
        complex64 [n, N, N], a patch for each pattern, which a physics-informed network learns instead of explaining the
        patterns: those that a larger network gives (distillation).

    Raises
    ------
    InputError
        If the scan does not fit the settings, the framework is missing, an interrupted training is there and
        `resume` is not given, a file cannot be written, or the loss stops being finite.
    """
    if labels is not None:
        scan = replace(scan, labels=labels)
    scan = without_dark_patterns(scan)
    data = prepare(scan, network, training, architecture, distilled=labels is not None)
    if labels is not None:
        data = replace(data, sha256=hash_of({"scan": data.sha256, **fingerprint({"labels": labels})}))
    if source is not None:
        source.require_same(architecture.name, network)
    init_sha256 = None if source is None else source.sha256
    plan = RunPlan(
        architecture=architecture.name,
        revision=architecture.revision,
        network=network,
        training=training,
        data_sha256=data.sha256,
        init_sha256=init_sha256,
    )
    architecture.load_builder()
    fit = import_framework_module(
        f"ptychonnx.train.{architecture.framework}.training", architecture.framework
    ).fit
    helper = helps_another_process()
    if helper:
        folder = unfinished_folder(out)
    else:
        done = finished_already(out, plan) if resume else None
        if done is not None:
            return done
        folder = open_unfinished(out, plan, resume=resume)
    with nullcontext() if helper else locked(folder):
        progress = Progress(folder, training, writes=not helper)
        try:
            if source is not None and not helper:
                _copy_checkpoint(source.checkpoint, folder / INITIAL_NAME)
            for name, text in {} if files is None or helper else files.items():
                write_text(folder / name, text)
            job = Job(architecture, network, training, data, folder, progress, source is not None, on_step)
            fitted: Fitted = fit(job)
            held_out = np.unique(data.held_out)
            write_scan(folder / HELD_OUT_NAME, replace(scan.subset(held_out), reference=None, labels=None))
            learned = "supervised" if architecture.supervised else training.loss
            loss = learned if labels is None else "distilled"
            record = _record(scan, architecture, plan, data, progress, fitted, loss)
            write_run(folder, record)
            publish_run(folder, out)
        except BaseException as error:
            if not (helper or progress.done):
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise EnvironmentFailure(progress.unwritable(error)) from error
            raise
    return record


def helps_another_process() -> bool:
    """Whether this is a copy of the command that Lightning started for another device."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _copy_checkpoint(checkpoint: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    shutil.copyfile(checkpoint, folder / checkpoint.name)


def _record(
    scan: Scan,
    architecture: Architecture,
    plan: RunPlan,
    data: TrainingData,
    progress: Progress,
    fitted: Fitted,
    loss: str,
) -> RunRecord:
    best = progress.best
    return RunRecord(
        label=architecture.run_label(plan.network),
        architecture=architecture.name,
        revision=architecture.revision,
        framework=architecture.framework,
        network=plan.network,
        training=plan.training,
        scan=scan.name,
        data_sha256=data.sha256,
        probe_sha256=scan.probe_sha256() or "",
        flux=data.flux,
        scale=data.scale,
        loss_name=loss,
        final_loss=best.loss,
        validation_loss=best.validation_loss,
        disagreement=best.disagreement if math.isfinite(best.disagreement) else None,
        epochs_done=progress.done,
        best_epoch=best.epoch,
        init_sha256=plan.init_sha256,
        parameters=fitted.parameters,
        spectral_operator=fitted.spectral_operator,
        seconds=progress.seconds,
        versions=installed_versions(*fitted.packages),
        git_commit=_git_commit(),
        initial_tensors=fitted.initial_tensors,
        trained_tensors=fitted.trained_tensors,
    )


def _git_commit() -> str | None:
    """Commit of this checkout, with `-dirty` if files differ from it; None for an installed package."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        tracked = subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=False
        )
        describe = [*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        done = subprocess.run(describe, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if tracked.returncode == 0 and done.returncode == 0 else None
