"""Artifacts that can be deployed: checked, in one file, with a stamp and a valid model name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from ptychonnx.export.artifact.artifact_checks import check_artifact, raise_on_difference
from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.deploy.interface import Interface
from ptychonnx.export.deploy.stamped import Stamped, StampedContract, StampedModule
from ptychonnx.export.verification.reference_pair import module_reference
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import check_model_file, external_tensors
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.inference import Session

__all__ = ["Deployable", "read_artifacts", "read_stamp"]

# The name becomes a folder and a part of URLs: no separators, no leading dot or dash. Triton refuses two dots.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Deployable:
    """One artifact, with the bytes that were checked."""

    name: str  # of the model on the server: that of the file without its ending
    path: Path
    stamped: Stamped
    data: bytes

    @property
    def contract(self) -> Contract | None:
        """The contract of the artifact; None for a module, which has none."""
        return self.stamped.contract if isinstance(self.stamped, StampedContract) else None

    @property
    def interface(self) -> Interface:
        """The interface of the artifact."""
        return self.stamped.interface


def read_artifacts(paths: Sequence[Path]) -> list[Deployable]:
    """Check artifacts as `ptychonnx inspect --verify` does, and load them.

    Raises InputError if there is no artifact, a file is unsafe, has no stamp or violates it, has weights in other
    files, or has an invalid name or that of another file. Raises VerificationError if a file is not the one that was
    published.
    """
    if not paths:
        raise InputError("expected the path of at least one ONNX artifact")
    by_name: dict[str, Path] = {}
    for path in paths:
        if path.suffix != ".onnx" or not _NAME.fullmatch(path.stem) or ".." in path.stem:
            raise InputError(
                f"{path}: its name becomes that of the model, expected letters, digits, '_', '-' and '.' and the "
                "ending .onnx"
            )
        # Some file systems do not distinguish upper and lower case.
        if (other := by_name.setdefault(path.stem.lower(), path)) is not path:
            raise InputError(
                f"{other} and {path} would both be the model {path.stem!r}, expected different names"
            )
    return [_read(path) for path in paths]


def _read(path: Path) -> Deployable:
    model = check_model_file(path)
    data = path.read_bytes()
    if any(True for _ in external_tensors(model)):
        raise InputError(f"{path}: has weights in other files, expected everything in one file")
    stamped = _stamped(model, path)
    if stamped is None:
        raise InputError(
            f"{path}: no {CONTRACT_KEY} and no {MODULE_KEY} in its metadata, expected a file of `ptychonnx export` or "
            "`ptychonnx export-module`"
        )
    raise_on_difference(path, check_artifact(path))
    if isinstance(stamped, StampedContract):
        # The runtime checks that the graph keeps the promises of the contract.
        contract = Session(path, "cpu", threads=1).contract
        if contract.general:
            raise InputError(
                f"{path}: is general, and servers take no beam that all patterns share: deploy it with --specialise "
                "SCAN, or run `ptychonnx specialise` first"
            )
        stamped = StampedContract(contract, stamped.text)
    if path.read_bytes() != data:
        raise EnvironmentFailure(f"{path}: was changed by another process while it was read")
    return Deployable(path.stem, path, stamped, data)


def _stamped(model: onnx.ModelProto, path: Path) -> Stamped | None:
    """The stamp in the metadata of a model; None if there is none."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if (text := metadata.get(CONTRACT_KEY)) is not None:
        return StampedContract(Contract.from_json(text, str(path)), text)
    if (text := metadata.get(MODULE_KEY)) is None:
        return None
    description = ModuleDescription.from_json(text, str(path))
    _, reference = module_reference(model, description.bounds)
    return StampedModule(description, text, Interface.of_graph(model, path), reference)


def read_stamp(path: Path) -> Stamped | None:
    """The stamp of a file that was deployed earlier; None if it cannot be read."""
    try:
        return _stamped(check_model_file(path), path)
    except InputError:
        return None
