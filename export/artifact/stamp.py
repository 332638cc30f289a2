"""The stamp in the metadata of an ONNX file: a contract, or the description of a module that has none.

Both carry the hash of the graph and a reference pair, and are written and checked in the same way.
"""

from __future__ import annotations

from typing import TypeVar

import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.verification.reference_pair import contract_reference, module_reference
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import CONTRACT_HASH_KEY, contract_sha256

__all__ = ["Stamp", "metadata_of", "reference_inputs", "stamped_bytes"]

Stamp = TypeVar("Stamp", Contract, ModuleDescription)


def metadata_of(stamp: Contract | ModuleDescription) -> dict[str, str]:
    """The entries of the metadata, by key; a contract comes with the hash of its text."""
    text = stamp.to_json()
    if isinstance(stamp, Contract):
        return {CONTRACT_KEY: text, CONTRACT_HASH_KEY: contract_sha256(text)}
    return {MODULE_KEY: text}


def reference_inputs(
    stamp: Contract | ModuleDescription, model: onnx.ModelProto
) -> tuple[str, list[NDArray]]:
    """Rule and arrays of the reference inputs, see `ptychonnx.export.verification.reference_pair`."""
    return contract_reference(stamp) if isinstance(stamp, Contract) else module_reference(model, stamp.bounds)


def stamped_bytes(model: onnx.ModelProto, stamp: Contract | ModuleDescription) -> bytes:
    """The serialised model with its stamp; the same bytes for the same model and stamp."""
    onnx.helper.set_model_props(model, metadata_of(stamp))
    return model.SerializeToString(deterministic=True)
