"""Training: from a scan to a finished run folder, in the framework of the architecture."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.machine import installed_versions
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import checked
from ptychonnx.train.checkpoints import Checkpoints
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.dataset import TrainingData, combine, prepare
from ptychonnx.train.fine_tuning import InitialWeights
from ptychonnx.train.helper_process import helps_another_process
from ptychonnx.train.registry import Architecture, import_framework_module
from ptychonnx.train.run import (
    HELD_OUT_FOLDER,
    HELD_OUT_NAME,
    INITIAL_NAME,
    RunRecord,
    TrainedScan,
    fingerprint,
    hash_of,
    write_run,
)
from ptychonnx.train.scan_checks import without_dark_patterns
from ptychonnx.train.training_job import FitResult, TrainingJob
from ptychonnx.train.training_plan import TrainingPlan
from ptychonnx.train.unfinished_run import (
    finished_already,
    open_unfinished,
    publish_run,
    unfinished_folder,
)

__all__ = ["refuse_unused", "settings_for", "train"]


def settings_for(
    architecture: Architecture, values: Mapping[str, Any]
) -> tuple[NetworkConfig, TrainingConfig]:
    """Combine a user's values with the defaults of the architecture and the general defaults, in this order.

    Raises InputError if a setting is unknown or out of range.
    """
    merged = {**architecture.defaults, **values}
    names = {field.name for field in fields(TrainingConfig)}
    training = {name: value for name, value in merged.items() if name in names}
    network = {name: value for name, value in merged.items() if name not in names}
    return checked(NetworkConfig, network), checked(TrainingConfig, training)


def refuse_unused(architecture: Architecture, names: Collection[str]) -> None:
    """Refuse settings, by name, that an architecture does not have.

    Raises InputError.
    """
    for kind in (NetworkConfig, TrainingConfig):
        known = [field.name for field in fields(kind) if field.name not in {"n", *architecture.unused}]
        for name in sorted(architecture.unused & {*names} & {field.name for field in fields(kind)}):
            expected = ", ".join(f"--{option.replace('_', '-')}" for option in known)
            raise InputError(
                f"--{name.replace('_', '-')}: {architecture.name} does not have it, expected some of {expected}"
            )


def train(
    scan: Scan | Sequence[Scan],
    architecture: Architecture,
    network: NetworkConfig,
    training: TrainingConfig,
    out: Path,
    progress: Progress = SILENT,
    *,
    initial_weights: InitialWeights | None = None,
    resume: bool = False,
    files: Mapping[str, str] | None = None,
    labels: NDArray[np.complex64] | None = None,
    fresh: Callable[[int], Sequence[Scan]] | None = None,
) -> RunRecord:
    """Train one network and write its run folder (see `ptychonnx.train.run`), which replaces an earlier run at the end.

    Until then everything is in ``<out>.unfinished``, which stays if training is interrupted.

    Raises InputError if the scan does not fit the settings, the framework is not installed, or there is an interrupted
    training and `resume` is false. Raises VerificationError if training diverges; complete epochs are kept. Raises
    EnvironmentFailure if a file cannot be written; complete epochs are kept.

    * `scan`: one scan, or several, each with a beam of its own: then every step mixes them, and patterns of all are
      held out. The beam of the first is the default of the network.
    * `progress`: receives the number of optimiser steps.
    * `initial_weights`: weights to start from, instead of weights drawn with the seed.
    * `resume`: continue an interrupted training if there is one, to the result of an uninterrupted one. A finished run
      is left as it is.
    * `files`: text files to write into the run folder, by name.
    * `labels`: complex64 [n, N, N], one patch per pattern of one scan, such as those of a larger network: a
      physics-informed network learns them (distillation) instead of explaining the patterns.
    * `fresh`: with `TrainingConfig.fresh_scans`: returns as many new scans for an epoch, from 1. Patterns of `scan` are
      held out in every epoch, and a resumed training must get the same scans.
    """
    scans = [scan] if isinstance(scan, Scan) else list(scan)
    _check_scans(scans, architecture, training, labels, fresh)
    prepared = partial(_prepared, architecture=architecture, network=network, training=training)
    scans = [
        without_dark_patterns(scan if labels is None else replace(scan, labels=labels)) for scan in scans
    ]
    data = prepared(scans, labels)
    if initial_weights is not None:
        initial_weights.require_same(architecture.name, network)
    plan = TrainingPlan(
        architecture=architecture.name,
        revision=architecture.revision,
        network=network,
        training=training,
        data_sha256=data.sha256,
        init_sha256=None if initial_weights is None else initial_weights.sha256,
    )
    architecture.load_builder()
    fit = import_framework_module(
        f"ptychonnx.train.{architecture.framework}.training", architecture.framework
    ).fit
    helper = helps_another_process()
    if resume and not helper and (record := finished_already(out, plan)) is not None:
        return record

    def fresh_data(epoch: int) -> TrainingData:
        assert fresh is not None
        return prepared([without_dark_patterns(new) for new in fresh(epoch)])

    with (
        nullcontext(unfinished_folder(out)) if helper else open_unfinished(out, plan, resume=resume) as folder
    ):
        checkpoints = Checkpoints(folder, training, writes=not helper)
        with _keeping_epochs(checkpoints, removes=not helper):
            if not helper:
                _write_files(folder, initial_weights, files or {})
            progress.stage(f"Training {architecture.label}", data.steps(training), "steps")
            job = TrainingJob(
                architecture,
                network,
                training,
                data,
                folder,
                checkpoints,
                fine_tuned=initial_weights is not None,
                progress=progress,
                fresh=fresh_data if training.fresh_scans else None,
            )
            result: FitResult = fit(job)
            _write_held_out(folder, scans, data)
            learned = "supervised" if architecture.supervised else training.loss
            loss = learned if labels is None else "distilled"
            record = _record(scans, plan, job, result, loss)
            write_run(folder, record)
            publish_run(folder, out)
    return record


@contextmanager
def _keeping_epochs(checkpoints: Checkpoints, *, removes: bool) -> Iterator[None]:
    """On an error, keep the folder of the run if it has complete epochs, and name it if it cannot be written."""
    try:
        yield
    except BaseException as error:
        if removes and not checkpoints.done:
            shutil.rmtree(checkpoints.folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise checkpoints.write_failure(error) from error
        raise


def _prepared(
    scans: Sequence[Scan],
    labels: NDArray[np.complex64] | None = None,
    *,
    architecture: Architecture,
    network: NetworkConfig,
    training: TrainingConfig,
) -> TrainingData:
    distilled = labels is not None
    data = combine([prepare(scan, network, training, architecture, distilled=distilled) for scan in scans])
    if labels is None:
        return data
    return replace(data, sha256=hash_of({"scan": data.sha256, **fingerprint({"labels": labels})}))


def _write_files(folder: Path, initial_weights: InitialWeights | None, files: Mapping[str, str]) -> None:
    if initial_weights is not None:
        (folder / INITIAL_NAME).mkdir(exist_ok=True)
        checkpoint = initial_weights.checkpoint
        shutil.copyfile(checkpoint, folder / INITIAL_NAME / checkpoint.name)
    for name, text in files.items():
        write_text(folder / name, text)


def _check_scans(
    scans: Sequence[Scan],
    architecture: Architecture,
    training: TrainingConfig,
    labels: NDArray[np.complex64] | None,
    fresh: Callable[[int], Sequence[Scan]] | None,
) -> None:
    """Refuse several scans where only one can be learned, and one where several are needed."""
    if training.fresh_scans and (fresh is None or len(scans) == 1):
        raise InputError("fresh_scans: expected several scans of one simulated family to draw new ones from")
    if training.fresh_scans and architecture.framework != "torch":
        raise InputError(f"fresh_scans: {architecture.name} is trained in Keras, expected a network in Torch")
    if not scans:
        raise InputError("no scan to train on, expected at least one")
    if len(scans) == 1:
        return
    if labels is not None:
        raise InputError(f"labels: {len(scans)} scans to learn them for, expected one")
    if architecture.supervised:
        raise InputError(
            f"{architecture.name}: has its beam built in and cannot learn {len(scans)} scans, expected one scan or a "
            "physics-informed network such as hybrid"
        )


def _write_held_out(folder: Path, scans: Sequence[Scan], data: TrainingData) -> None:
    rows = np.unique(data.held_out)
    for number, scan in enumerate(scans):
        first = int(np.argmax(data.beam_of == number))
        subset = scan.subset(rows[data.beam_of[rows] == number] - first)
        path = folder / HELD_OUT_NAME if not number else folder / HELD_OUT_FOLDER / f"{number:04d}.npz"
        write_scan(path, replace(subset, reference=None, labels=None))


def _trained_scans(scans: Sequence[Scan], data: TrainingData) -> tuple[TrainedScan, ...]:
    return tuple(
        TrainedScan(
            name=scan.name,
            patterns=len(scan),
            modes=len(beam.probe),
            photons=beam.flux,
            step=float(np.median(KDTree(scan.positions).query(scan.positions, 2)[0][:, 1])),
            data_sha256=beam.sha256,
            probe_sha256=scan.probe_sha256() or "",
        )
        for scan, beam in zip(scans, data.beams, strict=True)
    )


def _record(
    scans: Sequence[Scan], plan: TrainingPlan, job: TrainingJob, result: FitResult, loss: str
) -> RunRecord:
    architecture, data, checkpoints, best = job.architecture, job.data, job.checkpoints, job.checkpoints.best
    return RunRecord(
        label=architecture.run_label(plan.network) + ("_any" if len(scans) > 1 else ""),
        architecture=architecture.name,
        revision=architecture.revision,
        framework=architecture.framework,
        network=plan.network,
        training=plan.training,
        scan=scans[0].name if len(scans) == 1 else f"{len(scans)} scans, the first is {scans[0].name}",
        scans=_trained_scans(scans, data),
        data_sha256=data.sha256,
        probe_sha256=scans[0].probe_sha256() or "",
        flux=data.flux,
        scale=data.scale,
        loss_name=loss,
        final_loss=best.loss,
        validation_loss=best.validation_loss,
        disagreement=best.disagreement if math.isfinite(best.disagreement) else None,
        epochs_done=checkpoints.done,
        best_epoch=best.epoch,
        init_sha256=plan.init_sha256,
        parameters=result.parameters,
        spectral_operator=result.spectral_operator,
        seconds=checkpoints.seconds,
        versions=installed_versions("ptychonnx", "numpy", *result.packages),
        git_commit=_git_commit(),
        initial_tensors=result.initial_tensors,
        trained_tensors=result.trained_tensors,
    )


def _git_commit() -> str | None:
    """Commit of this checkout, with `-dirty` if files were changed; None for an installed package."""
    # The package reaches this folder through a link, which git does not follow.
    file = Path(__file__).resolve()
    git = ["git", "-C", str(file.parent)]
    try:
        tracked = subprocess.run(
            [*git, "ls-files", "--error-unmatch", str(file)], capture_output=True, check=False
        )
        describe = [*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        done = subprocess.run(describe, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if tracked.returncode == 0 and done.returncode == 0 else None
