"""Whether a server, a contract and an artifact are about the same network."""

from __future__ import annotations

from pathlib import Path

from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import check_model_file
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.remote.protocol import ModelConfig, ModelMetadata, TensorDescription

__all__ = ["agreed_contract", "check_metadata"]

_TYPES = {"float32": "FP32", "uint16": "UINT16"}


def agreed_contract(published: str | None, artifact: Path | None, where: str) -> Contract:
    """The contract that a server publishes, or that of an artifact; `where` is the URL for messages.

    Raises
    ------
    InputError
        If there is neither, either is not understood, or they differ.
    """
    served = None if published is None else Contract.from_json(published, where)
    given = None if artifact is None else _contract_of(artifact)
    if served is not None and given is not None and served != given:
        parts = [name for name in Contract.model_fields if getattr(served, name) != getattr(given, name)]
        raise InputError(
            f"{where}: publishes another contract than {artifact} has, they differ in {', '.join(parts)}"
        )
    if (found := served or given) is None:
        raise InputError(
            f"{where}: the server publishes no {CONTRACT_KEY}, expected --contract with the artifact"
        )
    return found


def check_metadata(
    contract: Contract, metadata: ModelMetadata, config: ModelConfig, where: str
) -> int | None:
    """Compare the inputs and outputs of a server with the contract.

    Returns
    -------
    The largest batch of a request, None if any.

    Raises
    ------
    InputError
        If a name, type or shape is another, or the contract's only batch is not taken.
    """
    side, channels = contract.n, contract.channels
    largest = config.max_batch
    for kind, tensors, name, datatype, expected in (
        *(("input", metadata.inputs, each.name, _TYPES[each.dtype], each.shape) for each in contract.inputs),
        ("output", metadata.outputs, contract.output.name, "FP32", (side, side, channels, 2)),
    ):
        found = {tensor.name: tensor for tensor in tensors}
        if name not in found:
            raise InputError(f"{where}: contract names {kind} {name!r}, the server has {sorted(found)}")
        tensor = found[name]
        if tensor.datatype != datatype:
            raise InputError(
                f"{where}: contract promises {kind} {name!r} of type {datatype}, the server has {tensor.datatype}"
            )
        if not _fits(tensor, expected):
            raise InputError(
                f"{where}: contract promises {kind} {name!r} of shape [batch, {', '.join(map(str, expected))}], the "
                f"server has {list(tensor.shape)}"
            )
        if tensor.shape[0] > 0:
            largest = min(largest or tensor.shape[0], tensor.shape[0])
            if contract.batch is None:
                raise InputError(
                    f"{where}: contract promises any batch of {kind} {name!r}, the server has a batch of "
                    f"{tensor.shape[0]}"
                )
    if contract.batch is not None and largest is not None and largest < contract.batch:
        raise InputError(
            f"{where}: contract promises a batch of {contract.batch}, the server takes at most {largest}"
        )
    return largest


def _fits(tensor: TensorDescription, expected: tuple[int, ...]) -> bool:
    """Whether the sizes behind the batch are those expected, or free."""
    sizes = tensor.shape[1:]
    return len(sizes) == len(expected) and all(
        size in {-1, wanted} for size, wanted in zip(sizes, expected, strict=True)
    )


def _contract_of(artifact: Path) -> Contract:
    metadata = {entry.key: entry.value for entry in check_model_file(artifact).metadata_props}
    if CONTRACT_KEY not in metadata:
        raise InputError(
            f"{artifact}: no {CONTRACT_KEY} in its metadata, expected an artifact of `ptychonnx export`"
        )
    return Contract.from_json(metadata[CONTRACT_KEY], str(artifact))
