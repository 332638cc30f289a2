"""What the training loop of a framework receives, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.progress import Progress
from ptychonnx.train.checkpoints import Checkpoints
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.dataset import TrainingData
from ptychonnx.train.initial_retrieval import RetrievalConstants, constants_for_network
from ptychonnx.train.registry import Architecture
from ptychonnx.train.run import INITIAL_NAME, fingerprint

__all__ = ["FitResult", "TrainingJob"]


@dataclass(frozen=True)
class TrainingJob:
    """Arguments of a framework's `fit`.

    `fresh` returns the data that later epochs, from 1, are trained on; all epochs are trained on `data` if None.
    """

    architecture: Architecture
    network: NetworkConfig
    training: TrainingConfig
    data: TrainingData
    folder: Path  # of the unfinished run, for the checkpoint and ``logs/``
    checkpoints: Checkpoints  # epochs trained before, and where the next ones go
    fine_tuned: bool  # from the checkpoint in ``initial/`` instead of weights drawn with the seed
    progress: Progress  # receives the number of optimiser steps
    fresh: Callable[[int], TrainingData] | None = None

    @property
    def initial(self) -> Path | None:
        """Folder of the checkpoint to start from."""
        return self.folder / INITIAL_NAME if self.fine_tuned else None

    def retrieval_constants(self) -> RetrievalConstants:
        """Constants of phase retrieval for the beam of the first scan."""
        beam = self.data.beam
        return constants_for_network(self.network, beam.probe, beam.scale, beam.mask)

    def require_equal_shares(self) -> None:
        """Refuse a step that the devices cannot share equally.

        Raises InputError if the number of its groups is not a multiple of the number of devices.
        """
        groups, devices = self.data.groups_in_step(self.training), self.training.devices
        if groups % devices:
            raise InputError(
                f"--devices {devices}: a step has {groups} groups of {self.data.train.shape[1]} patterns, "
                f"expected a multiple of {devices}"
            )

    def log_folder(self) -> Path:
        """A new folder for the loggers of the framework, which would overwrite their files of before a kill."""
        return self.folder / "logs" / f"from_epoch_{self.checkpoints.done + 1:04d}"

    def tensorboard(self) -> bool:
        """Whether to write logs for TensorBoard.

        Raises InputError if they are required and TensorBoard is not installed.
        """
        required = self.training.tensorboard
        installed = find_spec("tensorboard") is not None
        if required and not installed:
            raise InputError('--tensorboard: is not installed: pip install "ptychonnx[tensorboard]"')
        return installed if required is None else required


@dataclass(frozen=True)
class FitResult:
    """Result of a framework's `fit`, next to the checkpoint of the best epoch that it writes."""

    initial_tensors: dict[str, str]
    trained_tensors: dict[str, str]
    parameters: int
    spectral_operator: str | None
    packages: tuple[str, ...]

    @classmethod
    def of_best_epoch(
        cls, job: TrainingJob, network: Any, initial_tensors: dict[str, str], packages: tuple[str, ...]
    ) -> FitResult:
        """Load the weights of the best epoch into a network of the framework, and write them into the run folder."""
        network.load(job.checkpoints.best_folder)
        network.save(job.folder)
        tensors = network.tensors()
        return cls(
            initial_tensors=initial_tensors,
            trained_tensors=fingerprint(tensors),
            parameters=sum(value.size for value in tensors.values()),
            spectral_operator=network.spectral_operator(),
            packages=packages,
        )
