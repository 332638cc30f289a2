"""Where a fine-tuned network starts from: the weights of another run."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptychonnx.runtime.errors import InputError
from ptychonnx.train.checkpoints import Progress
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.run import CONFIG_NAME, read_run
from ptychonnx.train.training_plan import PLAN_NAME, read_plan

__all__ = ["Source", "find_source"]


@dataclass(frozen=True)
class Source:
    """A run whose weights another one starts from.

    Attributes
    ----------
    path
        Of its folder.
    architecture, network
        What was trained there.
    checkpoint
        File with the weights.
    """

    path: Path
    architecture: str
    network: NetworkConfig
    checkpoint: Path

    @property
    def sha256(self) -> str:
        """Of the checkpoint."""
        return hashlib.sha256(self.checkpoint.read_bytes()).hexdigest()

    def inherited(self) -> dict[str, Any]:
        """Settings that must be the same for the weights to fit."""
        return {name: value for name, value in asdict(self.network).items() if name != "n"}

    def require_same(self, architecture: str, network: NetworkConfig) -> None:
        """Refuse weights of another network.

        Raises
        ------
        InputError
            If the architecture or a setting of the network differs.
        """
        if architecture != self.architecture:
            raise InputError(
                f"{self.path}: holds the architecture {self.architecture}, expected {architecture}"
            )
        for name, value in self.inherited().items():
            if getattr(network, name) != value:
                raise InputError(
                    f"{self.path}: was trained with {name} = {value}, which cannot become {getattr(network, name)}"
                )


def find_source(path: Path) -> Source:
    """A run, finished or not, to start from.

    Raises
    ------
    InputError
        If the path is no such run.
    """
    if path.is_file():
        raise InputError(
            f"{path}: is a file; an artifact holds a compiled graph, whose weights are folded, reordered and "
            "lowered, and no optimiser can train it: expected the run folder that it was exported from"
        )
    if (path / PLAN_NAME).is_file() and not (path / CONFIG_NAME).is_file():
        plan = read_plan(path)
        progress = Progress(path, plan.training, writes=False)
        if not progress.done:
            raise InputError(f"{path}: no epoch was complete, so there are no weights to start from")
        return Source(path, plan.architecture, plan.network, _checkpoint(progress.best_folder))
    record = read_run(path)
    return Source(path, record.architecture, record.network, _checkpoint(path))


def _checkpoint(folder: Path) -> Path:
    found = sorted(folder.glob("checkpoint.*"))
    if len(found) != 1:
        raise InputError(f"{folder}: expected one checkpoint, found {len(found)}")
    return found[0]
