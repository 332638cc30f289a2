"""Settings of an unfinished run, kept in its folder, so that it is resumed with the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.paths import read_text
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.run import RunRecord

__all__ = ["PLAN_NAME", "TrainingPlan", "plan_of", "read_plan", "write_plan"]

PLAN_NAME = "plan.json"
# Settings that do not change the result, so that a resumed run may have others.
_FREE = {"tensorboard"}


class TrainingPlan(BaseModel):
    """Everything that determines the result of a training; a run is resumed only with the same plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str
    revision: int = 1
    network: NetworkConfig
    training: TrainingConfig
    data_sha256: str
    init_sha256: str | None = None

    def differences(self, other: TrainingPlan) -> Iterator[str]:
        """Describe the settings in which another plan differs, with the value of this one first."""
        mine, theirs = _settings(self), _settings(other)
        for name, value in mine.items():
            if value != theirs[name]:
                yield f"{name} = {value}, not {theirs[name]}"
        if self.revision != other.revision:
            yield f"revision {self.revision} of {self.architecture}, not {other.revision}"
        if self.data_sha256 != other.data_sha256:
            yield "another scan (or another probe)"
        if self.init_sha256 != other.init_sha256:
            yield "other initial weights"


def _settings(plan: TrainingPlan) -> dict[str, Any]:
    values = {**asdict(plan.network), **asdict(plan.training)}
    return {
        "architecture": plan.architecture,
        **{name: value for name, value in values.items() if name not in _FREE},
    }


def plan_of(record: RunRecord) -> TrainingPlan:
    """The plan of a finished run."""
    return TrainingPlan(**{name: getattr(record, name) for name in TrainingPlan.model_fields})


def write_plan(folder: Path, plan: TrainingPlan) -> None:
    write_text(folder / PLAN_NAME, plan.model_dump_json(indent=2) + "\n")


def read_plan(folder: Path) -> TrainingPlan:
    """Read `plan.json`.

    Raises InputError if the file is missing or cannot be read.
    """
    path = folder / PLAN_NAME
    try:
        return TrainingPlan.model_validate_json(read_text(path))
    except (OSError, ValidationError) as error:
        raise InputError(f"{path}: cannot be read, expected the plan of an interrupted training") from error
