"""From a scan to a finished run folder, in whichever framework the architecture belongs to."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.atomic import atomic_folder
from runtime.formats import write_scan
from runtime.scan import Scan
from runtime.settings import checked
from train.config import NetworkConfig, TrainingConfig
from train.dataset import TrainingData, prepare
from train.history import History
from train.registry import Architecture, import_framework_module
from train.run import CONFIG_NAME, HELD_OUT_NAME, RunRecord, installed_versions, write_run

__all__ = ["Fitted", "OnStep", "settings_for", "train"]

OnStep = Callable[[int, int], None]
"""Called with the optimiser steps done and those there will be."""


@dataclass(frozen=True)
class Fitted:
    """What a framework's `fit` gives back, next to the checkpoint it wrote."""

    history: History
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
) -> RunRecord:
    """Train one network and leave a run folder (see `train.run`). An earlier run there is replaced at the end.

    Raises
    ------
    InputError
        If the scan does not fit the settings, the framework is missing, or the loss stops being finite.
    """
    data = prepare(scan, network, training, supervised=architecture.supervised)
    architecture.load_builder()
    fit = import_framework_module(f"train.{architecture.framework}.training", architecture.framework).fit
    with atomic_folder(out, CONFIG_NAME) as folder:
        fitted: Fitted = fit(architecture, network, training, data, folder, on_step)
        held_out = np.unique(data.held_out)
        write_scan(folder / HELD_OUT_NAME, replace(scan.subset(held_out), reference=None, labels=None))
        record = _record(scan, architecture, network, training, data, fitted)
        write_run(folder, record)
    return record


def _record(
    scan: Scan,
    architecture: Architecture,
    network: NetworkConfig,
    training: TrainingConfig,
    data: TrainingData,
    fitted: Fitted,
) -> RunRecord:
    last = fitted.history.epochs[-1]
    return RunRecord(
        label=architecture.label,
        architecture=architecture.name,
        framework=architecture.framework,
        network=network,
        training=training,
        scan=scan.name,
        data_sha256=data.sha256,
        probe_sha256=scan.probe_sha256() or "",
        flux=data.flux,
        scale=data.scale,
        loss_name="supervised" if architecture.supervised else training.loss,
        final_loss=last.loss,
        validation_loss=last.validation_loss,
        epochs_done=last.epoch,
        parameters=fitted.parameters,
        spectral_operator=fitted.spectral_operator,
        seconds=fitted.history.seconds,
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
