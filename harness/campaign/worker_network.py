"""The network of a worker process: the same file and the same ptychonnx as where the tasks come from."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path

from ptychonnx.harness.campaign.manifest import VERSION
from ptychonnx.harness.campaign.scan_run import Networks
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.paths import file_sha256

__all__ = ["WorkerNetwork", "check_shared_folder"]


@dataclass(frozen=True)
class WorkerNetwork:
    """A network that workers open.

    * `path`, `sha256`: the artifact and its hash; None for the general network of the zoo.
    * `inference`, `threads`: see `Networks`.
    * `version`: version of ptychonnx that every worker must have.
    """

    path: Path | None
    sha256: str | None
    inference: InferenceOptions
    threads: int | None
    version: str = VERSION

    @classmethod
    def of(cls, model: Path | None, inference: InferenceOptions, threads: int | None) -> WorkerNetwork:
        """Describe an artifact of this machine."""
        path = None if model is None else artifact_path(model).absolute()
        return cls(path, None if path is None else file_sha256(path), inference, threads)

    def open(self) -> Networks:
        """Open the network; once in a process, which keeps it.

        Raises InputError if this machine has another version of ptychonnx, or no such file or another one at the path.
        """
        return _opened(self)


def check_shared_folder(folder: Path) -> None:
    """Refuse a folder that the command has created and this machine does not see.

    Raises InputError with the name of the machine.
    """
    if not folder.is_dir():
        raise InputError(
            f"{platform.node()}: does not see {folder}, expected a folder that all workers share"
        )


# An evaluation compares several networks.
@functools.lru_cache(maxsize=16)
def _opened(network: WorkerNetwork) -> Networks:
    host = platform.node()
    if network.version != VERSION:
        raise InputError(f"{host}: has ptychonnx {VERSION}, expected {network.version}")
    if network.path is not None:
        if not network.path.is_file():
            raise InputError(f"{host}: does not see {network.path}, expected a folder that all workers share")
        if file_sha256(network.path) != network.sha256:
            raise InputError(f"{host}: {network.path} differs from the network of the command")
    return Networks(network.path, network.inference, network.threads)
