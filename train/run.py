"""The run folder: everything that training leaves behind and that export needs.

==================  ==========================================================================
``config.json``     architecture, settings, and the record of the training (`RunRecord`)
``checkpoint.*``    trained weights: ``.safetensors`` (Torch) or ``.weights.h5`` (Keras); no pickles
``held_out.npz``    a scan of the patterns that training did not see, with the probe
``history.csv``     losses, a row an epoch
``logs/``           what the framework's own loggers wrote, a folder each time it was started
``initial/``        the checkpoint that a fine-tuned network started from
``train.yaml``      every option as it was resolved, for `ptychonnx train --config`
==================  ==========================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.scan import Scan
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.initial_retrieval import FirstGuess, first_guess_of

__all__ = [
    "CONFIG_NAME",
    "HELD_OUT_NAME",
    "INITIAL_NAME",
    "LayerOutput",
    "NativeNetwork",
    "RunRecord",
    "fingerprint",
    "hash_of",
    "held_out_scan",
    "installed_versions",
    "read_run",
    "recorded_guess",
    "write_run",
]

CONFIG_NAME = "config.json"
HELD_OUT_NAME = "held_out.npz"
INITIAL_NAME = "initial"


@dataclass(frozen=True)
class LayerOutput:
    """What one layer of a network gave.

    Attributes
    ----------
    name
        In the words of the framework.
    output
        The array.
    after
        Names of the layers that it reads from; None if not known, that is, perhaps from all earlier ones.
    """

    name: str
    output: NDArray
    after: tuple[str, ...] | None = None


class NativeNetwork(Protocol):
    """A trained network in its own framework, behind one face for export and tests."""

    def predict(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Object parts float32 [B, N, N, C, 2] of measured amplitudes float32 [B, C, N, N] and, if the network takes
        them, offsets float32 [B, C, 2].
        """
        ...

    def tensors(self) -> dict[str, NDArray]:
        """Every trainable tensor by name."""
        ...

    def layers(self, *inputs: NDArray[np.float32]) -> list[LayerOutput]:
        """What every layer gives for the inputs of `predict`, none before those it reads from."""
        ...


class RunRecord(BaseModel):
    """What `config.json` holds.

    Attributes
    ----------
    final_loss, validation_loss, disagreement
        Of the epoch whose weights were kept.
    epochs_done, best_epoch
        Epochs that were trained, and the one whose weights were kept.
    revision
        Of the architecture, see `ptychonnx.train.registry.Architecture`.
    init_sha256
        Of the checkpoint that training started from; None if from the seed alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    label: str
    architecture: str
    revision: int = 1
    framework: Literal["torch", "tensorflow"]
    network: NetworkConfig
    training: TrainingConfig
    scan: str
    data_sha256: str
    probe_sha256: str
    flux: float
    scale: float
    loss_name: str
    final_loss: float
    validation_loss: float
    disagreement: float | None = None
    epochs_done: int
    best_epoch: int | None = None
    init_sha256: str | None = None
    parameters: int
    spectral_operator: str | None
    seconds: float
    versions: dict[str, str]
    git_commit: str | None
    initial_tensors: dict[str, str]
    trained_tensors: dict[str, str]

    @property
    def final_steps(self) -> int | None:
        """Steps of phase retrieval that the network ends with; None if it learned from known objects and has none."""
        return None if self.loss_name == "supervised" else self.network.final_steps

    def with_final_steps(self, steps: int) -> RunRecord:
        """The same weights with another number of last steps of phase retrieval, which hold no weights.

        Raises
        ------
        InputError
            If the network ends with no such steps.
        """
        if self.final_steps is None:
            raise InputError(
                f"--final-steps {steps}: {self.label} learned from known objects and ends with no steps of phase "
                "retrieval, expected a physics-informed network"
            )
        return self.model_copy(update={"network": replace(self.network, final_steps=steps)})


def write_run(folder: Path, record: RunRecord) -> None:
    """Write `config.json`; the last file of a run, so that a folder with it is complete."""
    write_text(folder / CONFIG_NAME, record.model_dump_json(indent=2) + "\n")


def read_run(folder: Path) -> RunRecord:
    """Read `config.json` of a run folder.

    Raises
    ------
    InputError
        If the folder is no finished run.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise InputError(f"{folder}: no {CONFIG_NAME} inside, expected a folder written by `ptychonnx train`")
    try:
        return RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InputError(f"{path}: {key}: {first['msg']}") from error


def fingerprint(tensors: Mapping[str, NDArray]) -> dict[str, str]:
    """SHA-256 of each tensor's values, by name."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        for name, value in tensors.items()
    }


def hash_of(fingerprints: Mapping[str, str]) -> str:
    """One SHA-256 for a whole set of tensors, whatever their order."""
    return hashlib.sha256("\n".join(f"{k} {v}" for k, v in sorted(fingerprints.items())).encode()).hexdigest()


def installed_versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that are installed, by distribution name."""
    found = {}
    for package in ("ptychonnx", "numpy", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def held_out_scan(folder: Path) -> Scan:
    """The patterns that training did not see."""
    return read_scan(Path(folder) / HELD_OUT_NAME)


def recorded_guess(folder: Path, record: RunRecord) -> FirstGuess:
    """The first guess that the network of a run was built with.

    Raises
    ------
    InputError
        If the run keeps no probe.
    """
    scan = held_out_scan(folder)
    if scan.probe is None:
        raise InputError(
            f"{folder}: {HELD_OUT_NAME} has no probe, expected a folder written by `ptychonnx train`"
        )
    return first_guess_of(record.network, scan.probe, record.scale, scan.mask)
