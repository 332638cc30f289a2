"""Initial weights of a fine-tuned network: those of another run."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptychonnx.runtime.errors import InputError
from ptychonnx.train.checkpoints import Checkpoints
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.run import CONFIG_NAME, read_run
from ptychonnx.train.training_plan import PLAN_NAME, read_plan

__all__ = ["InitialWeights", "find_initial_weights"]


@dataclass(frozen=True)
class InitialWeights:
    """The folder of a run, the network that was trained there, and the file with the weights to start from."""

    run: Path
    architecture: str
    network: NetworkConfig
    checkpoint: Path

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.checkpoint.read_bytes()).hexdigest()

    def inherited(self) -> dict[str, Any]:
        """Settings that must be the same for the weights to fit."""
        return {name: value for name, value in asdict(self.network).items() if name != "n"}

    def require_same(self, architecture: str, network: NetworkConfig) -> None:
        """Refuse weights of another network.

        Raises InputError if the architecture or a setting of the network differs.
        """
        if architecture != self.architecture:
            raise InputError(
                f"{self.run}: holds the architecture {self.architecture}, expected {architecture}"
            )
        for name, value in self.inherited().items():
            if getattr(network, name) != value:
                raise InputError(
                    f"{self.run}: was trained with {name} = {value}, which cannot become {getattr(network, name)}"
                )


def find_initial_weights(run: Path) -> InitialWeights:
    """Find the weights of a run, finished or not.

    Raises InputError if the path is not a run folder, or the run has no complete epoch.
    """
    if run.is_file():
        raise InputError(
            f"{run}: is a file; the weights of an artifact are folded and lowered for inference and cannot be trained, "
            "expected the run folder that it was exported from"
        )
    if (run / PLAN_NAME).is_file() and not (run / CONFIG_NAME).is_file():
        plan = read_plan(run)
        checkpoints = Checkpoints(run, plan.training, writes=False)
        if not checkpoints.done:
            raise InputError(f"{run}: no epoch was complete, so there are no weights to start from")
        return InitialWeights(run, plan.architecture, plan.network, _checkpoint(checkpoints.best_folder))
    record = read_run(run)
    return InitialWeights(run, record.architecture, record.network, _checkpoint(run))


def _checkpoint(folder: Path) -> Path:
    files = sorted(folder.glob("checkpoint.*"))
    if len(files) != 1:
        raise InputError(f"{folder}: expected one checkpoint, found {len(files)}")
    return files[0]
