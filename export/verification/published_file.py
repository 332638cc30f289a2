"""A published artifact against the hashes and the reference pair that it carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.verify import reference_input, reference_offsets, reference_pair
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract, ReferencePair
from ptychonnx.runtime.contract.integrity import (
    CONTRACT_HASH_KEY,
    check_model_file,
    contract_sha256,
    external_tensors,
    graph_sha256,
)
from ptychonnx.runtime.errors import InputError, VerificationError

__all__ = [
    "RMS_TOLERANCE",
    "Check",
    "check_artifact",
    "contract_input",
    "module_input",
    "raise_on_difference",
]

# Of the root mean square of the reference output on another processor, by precision.
RMS_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-2}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name
        What.
    passed
        None if the artifact stores nothing that it could be compared with.
    finding
        What was found, in words.
    """

    name: str
    passed: bool | None
    finding: str


def contract_input(contract: Contract) -> tuple[str, list[NDArray]]:
    """The reference inputs of an artifact, which anyone can make again from its contract.

    Returns
    -------
    (rule in words, patterns [batch, C, N, N] and, if it takes them, offsets [batch, C, 2])
    """
    rule, patterns = reference_input(contract.channels, contract.n, contract.probe.flux, contract.input.dtype)
    inputs = [patterns]
    if contract.offsets is not None:
        how, offsets = reference_offsets(contract.gridsize, contract.n)
        rule, inputs = f"{rule}; {how}", [patterns, offsets]
    if contract.batch is None:
        return rule, inputs
    repeated = [each.take(range(contract.batch), axis=0, mode="wrap") for each in inputs]
    return f"{rule}, repeated to a batch of {contract.batch}", repeated


def module_input(model: onnx.ModelProto) -> tuple[str, list[NDArray]]:
    """The reference inputs of a graph without a contract, made from their shapes.

    Returns
    -------
    (rule in words, inputs of normal numbers, 2 along every axis that is dynamic)
    """
    shapes = [
        tuple(axis.dim_value or 2 for axis in value.type.tensor_type.shape.dim) for value in model.graph.input
    ]
    generator = np.random.RandomState(0)
    inputs: list[NDArray] = [generator.standard_normal(shape).astype(np.float32) for shape in shapes]
    shown = ", then ".join(map(str, shapes))
    return f"float32 of numpy.random.RandomState(0).standard_normal, {shown}", inputs


def check_artifact(path: Path, max_bytes: int | None = None) -> list[Check]:
    """Look at everything in a file that can be checked without a key.

    Parameters
    ----------
    max_bytes
        Largest file that is opened; see `ptychonnx.runtime.contract.integrity.check_model_file`.

    Returns
    -------
    Whether the contract is the one that was stamped, the graph the one that was verified, and whether it still
    answers the reference input as it did. Later checks are left out after the first that failed.

    Raises
    ------
    InputError
        If the file is unsafe, no ONNX model, or carries neither a contract nor the description of a module.
    """
    model = check_model_file(path, max_bytes)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if CONTRACT_KEY in metadata:
        every = _contract_checks(path, model, metadata)
    elif MODULE_KEY in metadata:
        every = _module_checks(path, model, metadata[MODULE_KEY])
    else:
        raise InputError(f"{path}: no {CONTRACT_KEY} in its metadata, nothing in it that could be checked")
    checks: list[Check] = []
    for check in every:
        checks.append(check)
        if check.passed is False:
            break
    return checks


def raise_on_difference(path: Path, checks: Sequence[Check]) -> None:
    """Say that an artifact is not the one that was published.

    Raises
    ------
    VerificationError
        With the first check that failed.
    """
    for check in checks:
        if check.passed is False:
            raise VerificationError(f"{path}: {check.name}: {check.finding}")


def _contract_checks(path: Path, model: onnx.ModelProto, metadata: dict[str, str]) -> Iterator[Check]:
    text = metadata[CONTRACT_KEY]
    yield _hash("contract", metadata.get(CONTRACT_HASH_KEY), contract_sha256(text))
    contract = Contract.from_json(text, str(path))
    yield _hash("graph", contract.graph_sha256, graph_sha256(model))
    tolerance = RMS_TOLERANCE[contract.conversion.precision]
    yield from _reference(model, lambda: contract_input(contract), contract.reference, tolerance)


def _module_checks(path: Path, model: onnx.ModelProto, text: str) -> Iterator[Check]:
    module = ModuleDescription.from_json(text, str(path))
    yield _hash("graph", module.graph_sha256, graph_sha256(model))
    yield from _reference(model, lambda: module_input(model), module.reference, RMS_TOLERANCE["fp32"])


def _hash(name: str, stored: str | None, found: str) -> Check:
    if stored is None:
        return Check(name, None, f"no hash is stored, it is {found[:12]}")
    if stored != found:
        return Check(name, False, f"was changed: its hash is {found[:12]}, expected {stored[:12]}")
    return Check(name, True, f"hash {found[:12]}, as stored")


def _reference(
    model: onnx.ModelProto,
    make: Callable[[], tuple[str, list[NDArray]]],
    stored: ReferencePair | None,
    tolerance: float,
) -> Iterator[Check]:
    if outside := sum(1 for _ in external_tensors(model)):
        yield Check("weights in other files", None, f"{outside}, which no hash covers")
        yield Check("reference", None, "runs only a graph that holds its own weights")
        return
    if stored is None:
        yield Check("reference", None, "no pair is stored")
        return
    rule, inputs = make()
    if stored.rule != rule:
        yield Check("reference input", False, f"is {stored.rule!r}, expected {rule!r}")
        return
    try:
        engine = open_onnxruntime(model.SerializeToString())
        found = reference_pair(engine, rule, *inputs)
    except VerificationError as error:
        yield Check("reference output", False, str(error))
        return
    yield _hash("reference input", stored.input_sha256, found.input_sha256)
    if found.output_sha256 == stored.output_sha256:
        yield Check("reference output", True, f"bit for bit that of the export, in {engine.name}")
        return
    # The stored one may be 0; what is not finite is not close.
    passed = abs(found.output_rms - stored.output_rms) <= tolerance * stored.output_rms
    yield Check(
        "reference output",
        passed,
        f"other bits than at export, as another processor or engine gives; root mean square "
        f"{found.output_rms:.6g}, stored {stored.output_rms:.6g}: {'within' if passed else 'beyond'} "
        f"{tolerance:g} ({engine.name})",
    )
