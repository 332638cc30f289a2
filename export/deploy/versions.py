"""Which number a new version gets, what stands beside it, and what goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import Deployable, Interface, Stamped, read_contract
from ptychonnx.export.deploy.versioned_folder import existing_versions
from ptychonnx.runtime.errors import InputError

__all__ = ["MODEL_FILE", "Versions", "plan_versions"]

MODEL_FILE = "model.onnx"


@dataclass(frozen=True)
class Versions:
    """Versions of one model after a deployment.

    Attributes
    ----------
    new
        Number of the version that is added.
    removed
        Those that go.
    contracts
        Of the versions that stay and can be read, the new one included, smallest number first.
    """

    new: int
    removed: tuple[int, ...]
    contracts: dict[int, Stamped]

    def served(self, count: int) -> dict[int, Stamped]:
        """The newest versions that answer."""
        return dict(list(self.contracts.items())[-count:])


def plan_versions(root: Path, artifact: Deployable, options: DeployOptions) -> Versions:
    """Number the new version of a model.

    Raises
    ------
    InputError
        If the model exists and `append_version` is not set, or its versions have another interface.
    """
    folder = root / artifact.name
    numbers = existing_versions(folder)
    if folder.exists() and not options.append_version:
        newest = f"its newest version is {numbers[-1]}" if numbers else "it has no version"
        raise InputError(f"{folder}: is there already, {newest}; --append-version adds one")
    new = numbers[-1] + 1 if numbers else 1
    numbers.append(new)
    removed = numbers[: -options.prune] if options.prune else []
    contracts = {}
    for number in numbers[len(removed) : -1]:
        # What cannot be read, a server cannot load either: it is left alone, and not served.
        if (stamped := read_contract(folder / str(number) / MODEL_FILE)) is not None:
            _check_interface(folder / str(number), Interface.of(stamped.contract), artifact)
            contracts[number] = stamped
    return Versions(new, tuple(removed), contracts | {new: artifact.stamped})


def _check_interface(version: Path, interface: Interface, artifact: Deployable) -> None:
    if interface != artifact.interface:
        raise InputError(
            f"{artifact.path}: takes {artifact.interface}, {version} takes {interface}; versions of one model have "
            "one interface, expected another name"
        )
