"""The run folder: everything that training writes and export needs.

==================  ==========================================================================
``config.json``     architecture, settings, and the record of the training (`RunRecord`)
``checkpoint.*``    trained weights: ``.safetensors`` (Torch) or ``.weights.h5`` (Keras); no pickles
``held_out.npz``    a scan of the patterns that training did not see, with the probe; of the first scan, if
                    there are several
``held_out/``       those of the other scans, numbered from 0001
``history.csv``     losses, one row per epoch
``logs/``           output of the framework's own loggers, one folder per start
``initial/``        the checkpoint from which a fine-tuned network started
``family.json``     manifest of the simulated family, if the network was trained on one
``train.yaml``      every option as it was resolved, for `ptychonnx train --config`
==================  ==========================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.paths import read_text
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import first_fault
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants, constants_for_network

__all__ = [
    "CONFIG_NAME",
    "FAMILY_NAME",
    "HELD_OUT_FOLDER",
    "HELD_OUT_NAME",
    "INITIAL_NAME",
    "Family",
    "LayerOutput",
    "NativeNetwork",
    "RunRecord",
    "TrainedScan",
    "fingerprint",
    "hash_of",
    "held_out_scan",
    "held_out_scans",
    "read_family",
    "read_run",
    "recorded_constants",
    "resized_probe",
    "write_run",
]

CONFIG_NAME = "config.json"
HELD_OUT_NAME = "held_out.npz"
HELD_OUT_FOLDER = "held_out"
FAMILY_NAME = "family.json"
INITIAL_NAME = "initial"


@dataclass(frozen=True)
class LayerOutput:
    """Output of one layer of a network.

    `after`: names of the layers whose outputs it reads; None if unknown, so possibly all earlier ones.
    """

    name: str
    output: NDArray
    after: tuple[str, ...] | None = None


class NativeNetwork(Protocol):
    """A trained network in its own framework, with one interface for export and tests."""

    def predict(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Object parts float32 [B, N, N, C, 2] for measured amplitudes float32 [B, C, N, N] and, if the network takes
        them, offsets float32 [B, C, 2].
        """
        ...

    def tensors(self) -> dict[str, NDArray]:
        """Every trainable tensor by name."""
        ...

    def layers(self, *inputs: NDArray[np.float32]) -> list[LayerOutput]:
        """Output of every layer for the inputs of `predict`; a layer comes after those that it reads."""
        ...


class TrainedScan(BaseModel):
    """A scan that a network was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    patterns: int  # held-out ones included
    modes: int
    photons: float  # mean, in a pattern
    step: float  # median distance of a position from its nearest neighbour, pixels
    data_sha256: str  # of patterns, positions and probe
    probe_sha256: str


class FamilyMember(BaseModel):
    """A scan of a simulated family; the other keys of its manifest are ignored."""

    beam: str
    object: str


class Family(BaseModel):
    """Content of `family.json` that describes the scans, by file name."""

    scans: dict[str, FamilyMember]


class RunRecord(BaseModel):
    """Content of `config.json`.

    * `final_loss`, `validation_loss`, `disagreement`: figures of the epoch whose weights were kept.
    * `epochs_done`, `best_epoch`: number of trained epochs, and the one whose weights were kept.
    * `revision`: revision of the architecture, see `ptychonnx.train.registry.Architecture`.
    * `scan`, `probe_sha256`, `flux`, `scale`: of the first scan, whose beam is the default of the network.
    * `scans`: all scans that the network was trained on; empty in records of earlier versions.
    * `data_sha256`: of all scans together.
    * `init_sha256`: SHA-256 of the checkpoint from which training started; None if the weights were drawn with the
      seed.
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
    scans: tuple[TrainedScan, ...] = ()
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
        """Number of final steps of phase retrieval; None for a network that learned from known objects."""
        return None if self.loss_name == "supervised" else self.network.final_steps

    def with_final_steps(self, steps: int) -> RunRecord:
        """The record with another number of final steps of phase retrieval, which have no weights.

        Raises InputError if the network has no such steps.
        """
        if self.final_steps is None:
            raise InputError(
                f"--final-steps {steps}: {self.label} learned from known objects and has no final steps of "
                "phase retrieval, expected a physics-informed network"
            )
        return self.model_copy(update={"network": replace(self.network, final_steps=steps)})

    def with_size(self, n: int) -> RunRecord:
        """The record for patterns of another size, which a network without weights for each pixel can take."""
        return self.model_copy(update={"network": replace(self.network, n=n)})


def write_run(folder: Path, record: RunRecord) -> None:
    """Write `config.json`, the last file of a run: a folder that has one is complete."""
    write_text(folder / CONFIG_NAME, record.model_dump_json(indent=2) + "\n")


def read_run(folder: Path) -> RunRecord:
    """Read `config.json` of a run folder.

    Raises InputError if the folder is not a finished run.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise InputError(f"{folder}: no {CONFIG_NAME} inside, expected a folder written by `ptychonnx train`")
    try:
        return RunRecord.model_validate_json(read_text(path))
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error)}") from error


def read_family(folder: Path) -> Family | None:
    """Read `family.json` of a run folder; None if the network was not trained on one simulated family.

    Raises InputError if the file is damaged.
    """
    path = Path(folder) / FAMILY_NAME
    if not path.is_file():
        return None
    try:
        return Family.model_validate_json(read_text(path))
    except ValidationError as error:
        raise InputError(f"{path}: is damaged, expected the manifest of a simulated family") from error


def fingerprint(tensors: Mapping[str, NDArray]) -> dict[str, str]:
    """SHA-256 of the values of each tensor, by name."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        for name, value in tensors.items()
    }


def hash_of(fingerprints: Mapping[str, str]) -> str:
    """One SHA-256 for a set of tensors, independent of their order."""
    return hashlib.sha256("\n".join(f"{k} {v}" for k, v in sorted(fingerprints.items())).encode()).hexdigest()


def held_out_scan(folder: Path) -> Scan:
    """Read the held-out patterns of a run, those of its first scan."""
    return read_scan(Path(folder) / HELD_OUT_NAME)


def held_out_scans(folder: Path) -> tuple[Scan, ...]:
    """Read the held-out patterns of every scan of a run, in the order of training."""
    others = sorted((Path(folder) / HELD_OUT_FOLDER).glob("*.npz"))
    return (held_out_scan(folder), *map(read_scan, others))


def recorded_constants(folder: Path, record: RunRecord) -> RetrievalConstants:
    """Constants of phase retrieval with which the network of a run was built.

    Raises InputError if the run has no probe.
    """
    scan = held_out_scan(folder)
    if scan.probe is None:
        raise InputError(
            f"{folder}: {HELD_OUT_NAME} has no probe, expected a folder written by `ptychonnx train`"
        )
    if scan.size != record.network.n:
        probe = resized_probe(scan.probe, record.network.n)
        return constants_for_network(record.network, probe, record.network.n / np.sqrt(record.flux), None)
    return constants_for_network(record.network, scan.probe, record.scale, scan.mask)


def resized_probe(probe: NDArray[np.complexfloating], n: int) -> NDArray[np.complexfloating]:
    """The probe [modes, n, n] in a larger or smaller window of the same pixels, of the same power."""
    size = probe.shape[-1]
    resized = np.zeros((len(probe), n, n), dtype=probe.dtype)
    kept, old, new = min(size, n), size // 2 - min(size, n) // 2, n // 2 - min(size, n) // 2
    resized[:, new : new + kept, new : new + kept] = probe[:, old : old + kept, old : old + kept]
    power, kept_power = (np.sum(np.abs(array) ** 2) for array in (probe, resized))
    return (resized * np.sqrt(power / kept_power)).astype(probe.dtype)
