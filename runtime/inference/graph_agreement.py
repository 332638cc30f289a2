"""Whether the inputs and outputs of a loaded graph are those that its contract promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError

__all__ = ["check_agreement"]

_TYPES = {"float32": "float", "uint16": "uint16"}


def check_agreement(session: ort.InferenceSession, contract: Contract, path: Path) -> None:
    """Compare names, shapes and types of the graph's inputs and outputs with the contract.

    Raises InputError if they differ.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    if unknown := set(inputs) - {tensor.name for tensor in contract.inputs}:
        raise InputError(
            f"{path}: the graph takes {', '.join(sorted(unknown))} too, which the contract does not name"
        )
    for tensor in contract.inputs:
        _check_value(path, contract, "input", tensor.name, inputs, tensor.shape, _TYPES[tensor.dtype])
    if contract.beam is not None:
        defaults = {value.name: value for value in session.get_overridable_initializers()}
        for name, shape in contract.beam.shapes(contract.n).items():
            if name not in defaults or tuple(defaults[name].shape) != shape:
                raise InputError(
                    f"{path}: contract promises input {name!r} of shape {[*shape]} with a default, the graph "
                    f"has {[(value.name, value.shape) for value in defaults.values()]}"
                )
    patch = (contract.n, contract.n, contract.channels, 2)
    _check_value(path, contract, "output", contract.output.name, outputs, patch, "float")


def _check_value(
    path: Path,
    contract: Contract,
    kind: str,
    name: str,
    values: dict[str, ort.NodeArg],
    shape: Sequence[int],
    dtype: str,
) -> None:
    if name not in values:
        raise InputError(f"{path}: contract names {kind} {name!r}, the graph has {sorted(values)}")
    value = values[name]
    promise = f"{path}: contract promises"
    if not value.shape:
        raise InputError(f"{promise} {kind} {name!r} with axes, the graph does not say which it has")
    fixed = value.shape[0] if isinstance(value.shape[0], int) else None
    if fixed != contract.batch:
        raise InputError(
            f"{promise} {_batch(contract.batch)} of {kind} {name!r}, the graph has {_batch(fixed)}"
        )
    if list(value.shape[1:]) != list(shape):
        raise InputError(
            f"{promise} {kind} {name!r} of shape [batch, {', '.join(map(str, shape))}], the graph has {value.shape}"
        )
    if value.type != f"tensor({dtype})":
        raise InputError(f"{promise} {kind} {name!r} of type {dtype}, the graph has {value.type}")


def _batch(size: int | None) -> str:
    return "any batch" if size is None else f"a batch of {size}"
