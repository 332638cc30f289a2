"""Numbers of versions: the new one, those that stay, and those that are removed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import Deployable, read_stamp
from ptychonnx.export.deploy.stamped import Stamped
from ptychonnx.export.deploy.versioned_folder import ModelPlan, existing_versions
from ptychonnx.runtime.errors import InputError

__all__ = ["MODEL_FILE", "Versions", "plan_model", "plan_versions"]


MODEL_FILE = "model.onnx"


@dataclass(frozen=True)
class Versions:
    """Numbers of the new and of the removed versions of one model, and the contracts of those that stay."""

    new: int
    removed: tuple[int, ...]
    contracts: dict[int, Stamped]  # of those that can be read, in ascending order, the new one included

    def served(self, count: int) -> dict[int, Stamped]:
        """The `count` newest versions, which answer requests."""
        return dict(list(self.contracts.items())[-count:])


def plan_versions(root: Path, artifact: Deployable, options: DeployOptions) -> Versions:
    """Number the new version of a model.

    Raises InputError if the model exists and `append_version` is not set, or its versions have another interface.
    """
    folder = root / artifact.name
    numbers = existing_versions(folder)
    if folder.exists() and not options.append_version:
        newest = f"its newest version is {numbers[-1]}" if numbers else "without a version"
        raise InputError(f"{folder}: exists already, {newest}; --append-version adds one")
    new = numbers[-1] + 1 if numbers else 1
    numbers.append(new)
    removed = numbers[: -options.prune] if options.prune else []
    contracts = {}
    for number in numbers[len(removed) : -1]:
        # A server cannot load a version that cannot be read here: it stays and is not served.
        if (stamped := read_stamp(folder / str(number) / MODEL_FILE)) is not None:
            if stamped.interface != artifact.interface:
                raise InputError(
                    f"{artifact.path}: takes {artifact.interface}, but {folder / str(number)} takes "
                    f"{stamped.interface}; all versions of a model must have one interface, expected another name"
                )
            contracts[number] = stamped
    return Versions(new, tuple(removed), contracts | {new: artifact.stamped})


def plan_model(
    artifact: Deployable,
    versions: Versions,
    server: str,
    *,
    version_files: Mapping[str, bytes] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> ModelPlan:
    """Changes in the folder of a model: the new version, a README, and the files of the server.

    The README says in the words of `server` how that handles the folder. `version_files` are further files in the
    folder of the version, `files` in that of the model, where they are replaced after the README.
    """
    return ModelPlan(
        name=artifact.name,
        version=versions.new,
        version_files={MODEL_FILE: artifact.data, **(version_files or {})},
        files={"README.md": _readme(artifact, versions.new, server), **(files or {})},
        remove=versions.removed,
    )


def _readme(artifact: Deployable, version: int, server: str) -> bytes:
    """Input, output and contract of the newest version."""
    stamped = artifact.stamped
    (first, label), *others = stamped.rows().items()
    rows = {first: label, "version": str(version), **dict(others)}
    rows["graph"] = f"sha256 `{stamped.graph_sha256 or 'not stored'}`"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    title = "Contract" if artifact.contract else "Description"
    document = json.dumps(json.loads(stamped.text), indent=2, sort_keys=True)
    return (
        f"# {artifact.name}\n\n"
        f"{textwrap.fill(f'Written by `ptychonnx deploy`. {server}', 120)}\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"## {title} of version {version}\n\n```json\n{document}\n```\n"
    ).encode()
