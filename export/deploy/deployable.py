"""Artifacts that can be deployed: checked, in one file, with a contract and a valid model name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptychonnx.export.artifact.artifact_checks import check_artifact, raise_on_difference
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract, InputTensor
from ptychonnx.runtime.contract.integrity import check_model_file, external_tensors
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.inference import Session

__all__ = ["Deployable", "Interface", "StampedContract", "read_artifacts", "read_contract"]

# The name becomes a folder and a part of URLs: no separators, no leading dot or dash. Triton refuses two dots.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Interface:
    """The inputs and the output of a model, which all its versions share.

    Attributes
    ----------
    batch
        The only batch size; None if any.
    inputs
        Patterns first.
    domain
        Of the patterns: ``amplitude`` or ``counts``.
    output_shape
        Without the batch.
    """

    inputs: tuple[InputTensor, ...]
    domain: str
    output_name: str
    output_shape: tuple[int, ...]
    batch: int | None

    @classmethod
    def of(cls, contract: Contract) -> Interface:
        """The interface in a contract."""
        n, channels = contract.n, contract.channels
        return cls(
            inputs=contract.inputs,
            domain=contract.input.domain,
            output_name=contract.output.name,
            output_shape=(n, n, channels, 2),
            batch=contract.batch,
        )

    def __str__(self) -> str:
        batch = "batch" if self.batch is None else str(self.batch)
        patterns, *others = (
            f"{tensor.dtype} [{', '.join(map(str, (batch, *tensor.shape)))}]" for tensor in self.inputs
        )
        named = [f"{tensor.name}: {rest}" for tensor, rest in zip(self.inputs[1:], others, strict=True)]
        return "; ".join([f"{self.inputs[0].name}: {self.domain} {patterns}", *named])


@dataclass(frozen=True)
class StampedContract:
    """A contract, and its text in the artifact.

    Servers publish the text as it is: serialised again, it would have the fields of this version of ptychonnx, which
    an older client may refuse although it accepts the artifact.
    """

    contract: Contract
    text: str


@dataclass(frozen=True)
class Deployable:
    """One artifact.

    Attributes
    ----------
    name
        Name of the model on the server: that of the file without its ending.
    data
        The bytes that were checked.
    """

    name: str
    path: Path
    stamped: StampedContract
    data: bytes

    @property
    def contract(self) -> Contract:
        """The contract of the artifact."""
        return self.stamped.contract

    @property
    def interface(self) -> Interface:
        """The interface of the artifact."""
        return Interface.of(self.contract)


def read_artifacts(paths: Sequence[Path]) -> list[Deployable]:
    """Check artifacts as `ptychonnx inspect --verify` does, and load them.

    Raises
    ------
    InputError
        If there is no artifact, a file is unsafe, has no contract or violates it, has weights in other files, or has
        an invalid name or that of another file.
    VerificationError
        If a file is not the one that was published.
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
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if CONTRACT_KEY not in metadata:
        raise InputError(
            f"{path}: no {CONTRACT_KEY} in its metadata, expected an artifact of `ptychonnx export`"
        )
    raise_on_difference(path, check_artifact(path))
    contract = Session(path, "cpu", threads=1).contract
    if path.read_bytes() != data:
        raise EnvironmentFailure(f"{path}: was changed by another process while it was read")
    return Deployable(path.stem, path, StampedContract(contract, metadata[CONTRACT_KEY]), data)


def read_contract(path: Path) -> StampedContract | None:
    """The contract of a file that was deployed earlier; None if it cannot be read."""
    try:
        metadata = {entry.key: entry.value for entry in check_model_file(path).metadata_props}
        text = metadata[CONTRACT_KEY]
        return StampedContract(Contract.from_json(text, str(path)), text)
    except (InputError, KeyError):
        return None
