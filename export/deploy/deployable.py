"""Artifacts that are fit to be deployed: checked, in one file, with a contract and a name a server takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptychonnx.export.artifact.artifact_checks import check_artifact, raise_on_difference
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract, InputTensor
from ptychonnx.runtime.contract.integrity import check_model_file, external_tensors
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session

__all__ = ["Deployable", "Interface", "Stamped", "read_artifacts", "read_contract"]

# It becomes a folder and a part of an address: no separators, no leading dot or dash. Triton refuses two dots.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Interface:
    """What a client sees of a model: all versions under one name share it.

    Attributes
    ----------
    batch
        The only batch; None if any.
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
        """The interface that a contract promises."""
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
            f"{each.dtype} [{', '.join(map(str, (batch, *each.shape)))}]" for each in self.inputs
        )
        named = [f"{each.name}: {rest}" for each, rest in zip(self.inputs[1:], others, strict=True)]
        return "; ".join([f"{self.inputs[0].name}: {self.domain} {patterns}", *named])


@dataclass(frozen=True)
class Stamped:
    """A contract, and its text as it stands in the artifact.

    Servers publish that text: written anew, it would have the fields of this version of ptychonnx, which an older
    client does not take though it takes the artifact.
    """

    contract: Contract
    text: str


@dataclass(frozen=True)
class Deployable:
    """One artifact.

    Attributes
    ----------
    name
        Of the model on the server: the file's name without its ending.
    data
        The bytes that were checked.
    """

    name: str
    path: Path
    stamped: Stamped
    data: bytes

    @property
    def contract(self) -> Contract:
        """What the artifact says of itself."""
        return self.stamped.contract

    @property
    def interface(self) -> Interface:
        """What a client sees of it."""
        return Interface.of(self.contract)


def read_artifacts(paths: Sequence[Path]) -> list[Deployable]:
    """Check artifacts as `ptychonnx inspect --verify` does, and load them.

    Raises
    ------
    InputError
        If there is none, a file is unsafe, carries no contract or does not keep to it, keeps weights in other
        files, or its name or that of another one is not fit for a server.
    VerificationError
        If a file is not the one that was published.
    """
    if not paths:
        raise InputError("expected the path of at least one ONNX artifact")
    found: dict[str, Path] = {}
    for path in paths:
        if path.suffix != ".onnx" or not _NAME.fullmatch(path.stem) or ".." in path.stem:
            raise InputError(
                f"{path}: its name becomes that of the model, expected letters, digits, '_', '-' and '.' and the "
                "ending .onnx"
            )
        # Some file systems do not tell upper from lower case.
        if (other := found.setdefault(path.stem.lower(), path)) is not path:
            raise InputError(
                f"{other} and {path} would both be the model {path.stem!r}, expected different names"
            )
    return [_read(path) for path in paths]


def _read(path: Path) -> Deployable:
    model = check_model_file(path)
    data = path.read_bytes()
    if any(True for _ in external_tensors(model)):
        raise InputError(f"{path}: keeps weights in other files, expected everything in one file")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if CONTRACT_KEY not in metadata:
        raise InputError(
            f"{path}: no {CONTRACT_KEY} in its metadata, expected an artifact of `ptychonnx export`"
        )
    raise_on_difference(path, check_artifact(path))
    contract = Session(path, "cpu", threads=1).contract
    if path.read_bytes() != data:
        raise InputError(f"{path}: was changed while it was read")
    return Deployable(path.stem, path, Stamped(contract, metadata[CONTRACT_KEY]), data)


def read_contract(path: Path) -> Stamped | None:
    """The contract of a file that was deployed earlier; None if there is none to be read."""
    try:
        metadata = {entry.key: entry.value for entry in check_model_file(path).metadata_props}
        text = metadata[CONTRACT_KEY]
        return Stamped(Contract.from_json(text, str(path)), text)
    except (InputError, KeyError):
        return None
