"""Checks of a published file against the hashes and the reference pair in its stamp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.artifact.publication import reference_inputs
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.reference_pair import reference_pair
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import (
    CONTRACT_HASH_KEY,
    check_model_file,
    contract_sha256,
    external_tensors,
    graph_sha256,
)
from ptychonnx.runtime.errors import InputError, VerificationError

__all__ = ["RMS_TOLERANCE", "Check", "check_artifact", "raise_on_difference"]

# Allowed change of the root mean square of the reference output on another processor, by precision.
RMS_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-2}


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    * `name`: what was checked.
    * `passed`: None if the artifact stores nothing to compare with.
    * `finding`: the outcome in words.
    """

    name: str
    passed: bool | None
    finding: str


def check_artifact(path: Path) -> list[Check]:
    """Check everything in a file that can be checked without a key.

    Raises InputError if the file is unsafe, is not an ONNX model, or holds neither a contract nor the description of a
    module.

    Returns whether the contract is the one that was stamped, whether the graph is the one that was verified, and
    whether it still returns the same output for the reference input. Checks after the first failure are left out.
    """
    model = check_model_file(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if not {CONTRACT_KEY, MODULE_KEY} & set(metadata):
        raise InputError(f"{path}: no {CONTRACT_KEY} in its metadata, so there is nothing to check")
    checks: list[Check] = []
    for check in _checks(path, model, metadata):
        checks.append(check)
        if check.passed is False:
            break
    return checks


def raise_on_difference(path: Path, checks: Sequence[Check]) -> None:
    """Raise if an artifact is not the one that was published.

    Raises VerificationError with the first check that failed.
    """
    for check in checks:
        if check.passed is False:
            raise VerificationError(f"{path}: {check.name}: {check.finding}")


def _checks(path: Path, model: onnx.ModelProto, metadata: dict[str, str]) -> Iterator[Check]:
    stamp: Contract | ModuleDescription
    if CONTRACT_KEY in metadata:
        text = metadata[CONTRACT_KEY]
        yield _hash_check("contract", metadata.get(CONTRACT_HASH_KEY), contract_sha256(text))
        stamp = Contract.from_json(text, str(path))
    else:
        stamp = ModuleDescription.from_json(metadata[MODULE_KEY], str(path))
    yield _hash_check("graph", stamp.graph_sha256, graph_sha256(model))
    yield from _reference_checks(model, stamp)


def _hash_check(name: str, stored: str | None, computed: str) -> Check:
    if stored is None:
        return Check(name, None, f"no hash is stored, it is {computed[:12]}")
    if stored != computed:
        return Check(name, False, f"was changed: its hash is {computed[:12]}, expected {stored[:12]}")
    return Check(name, True, f"hash {computed[:12]}, as stored")


def _reference_checks(model: onnx.ModelProto, stamp: Contract | ModuleDescription) -> Iterator[Check]:
    stored = stamp.reference
    if outside := sum(1 for _ in external_tensors(model)):
        yield Check("weights in other files", None, f"{outside} tensors, which no hash covers")
        yield Check("reference", None, "only a graph that holds its own weights is run")
        return
    if stored is None:
        yield Check("reference", None, "no pair is stored")
        return
    rule, inputs = reference_inputs(stamp, model)
    if stored.rule != rule:
        yield Check("reference input", False, f"is {stored.rule!r}, expected {rule!r}")
        return
    try:
        engine = open_onnxruntime(model.SerializeToString())
        pair = reference_pair(engine, rule, *inputs, any_output=isinstance(stamp, ModuleDescription))
    except VerificationError as error:
        yield Check("reference output", False, str(error))
        return
    yield _hash_check("reference input", stored.input_sha256, pair.input_sha256)
    if pair.output_sha256 == stored.output_sha256:
        yield Check("reference output", True, f"bit for bit that of the export, in {engine.name}")
        return
    tolerance = RMS_TOLERANCE[stamp.conversion.precision if isinstance(stamp, Contract) else stamp.precision]
    # Compared without a quotient: the stored one may be 0. NaN fails.
    passed = abs(pair.output_rms - stored.output_rms) <= tolerance * stored.output_rms
    yield Check(
        "reference output",
        passed,
        f"other bits than at export, as on another processor or engine; root mean square "
        f"{pair.output_rms:.6g}, stored {stored.output_rms:.6g}: {'within' if passed else 'beyond'} "
        f"{tolerance:g} ({engine.name})",
    )
