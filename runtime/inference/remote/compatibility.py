"""Checks that server, contract and artifact describe the same network."""

from __future__ import annotations

from pathlib import Path

from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import check_model_file, stored_contract
from ptychonnx.runtime.errors import InputError, ServerError
from ptychonnx.runtime.inference.remote.connection import ModelConfig, ModelMetadata, TensorDescription

__all__ = ["agreed_contract", "check_metadata"]

_TYPES = {"float32": "FP32", "uint16": "UINT16"}


def agreed_contract(published: str | None, artifact: Path | None, where: str) -> Contract:
    """Return the contract that the server publishes, or else that of an artifact; `where` is the URL.

    Raises InputError if there is neither, or the artifact is invalid. Raises ServerError if the published contract is
    not understood, or differs from that of the artifact.
    """
    local = None if artifact is None else stored_contract(artifact, check_model_file(artifact))
    if published is None:
        if local is None:
            raise InputError(
                f"{where}: the server publishes no {CONTRACT_KEY}, expected --contract with the artifact"
            )
        return local
    try:
        served = Contract.from_json(published, where)
    except InputError as error:
        raise ServerError(str(error)) from error
    if local is not None and served != local:
        fields = [name for name in Contract.model_fields if getattr(served, name) != getattr(local, name)]
        raise ServerError(
            f"{where}: the published contract differs from that of {artifact} in {', '.join(fields)}"
        )
    return served


def check_metadata(
    contract: Contract, metadata: ModelMetadata, config: ModelConfig, where: str
) -> int | None:
    """Compare the inputs and outputs of a server with the contract.

    Raises ServerError if a name, type or shape differs, or the server does not accept the contract's fixed batch.

    Returns the largest batch of a request; None if it is not limited.
    """
    side, channels = contract.n, contract.channels
    largest = config.max_batch
    for kind, tensors, name, datatype, expected in (
        *(
            ("input", metadata.inputs, tensor.name, _TYPES[tensor.dtype], tensor.shape)
            for tensor in contract.inputs
        ),
        ("output", metadata.outputs, contract.output.name, "FP32", (side, side, channels, 2)),
    ):
        described = {tensor.name: tensor for tensor in tensors}
        if name not in described:
            raise ServerError(f"{where}: contract names {kind} {name!r}, the server has {sorted(described)}")
        tensor = described[name]
        if tensor.datatype != datatype:
            raise ServerError(
                f"{where}: contract promises {kind} {name!r} of type {datatype}, the server has {tensor.datatype}"
            )
        if not _fits(tensor, expected):
            raise ServerError(
                f"{where}: contract promises {kind} {name!r} of shape [batch, {', '.join(map(str, expected))}], the "
                f"server has {list(tensor.shape)}"
            )
        if tensor.shape[0] > 0:
            largest = min(largest or tensor.shape[0], tensor.shape[0])
            if contract.batch is None:
                raise ServerError(
                    f"{where}: contract promises any batch of {kind} {name!r}, the server has a batch of "
                    f"{tensor.shape[0]}"
                )
    if contract.batch is not None and largest is not None and largest < contract.batch:
        raise ServerError(
            f"{where}: contract promises a batch of {contract.batch}, the server takes at most {largest}"
        )
    return largest


def _fits(tensor: TensorDescription, expected: tuple[int, ...]) -> bool:
    """Whether the sizes after the batch are the expected ones, or arbitrary."""
    sizes = tensor.shape[1:]
    return len(sizes) == len(expected) and all(
        size in {-1, other} for size, other in zip(sizes, expected, strict=True)
    )
