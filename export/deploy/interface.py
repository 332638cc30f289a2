"""The inputs and outputs of a model as a server sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import onnx

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError

__all__ = ["TYPES", "Interface", "ServedTensor"]

# Types in the Open Inference Protocol.
TYPES = {
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": "BOOL",
}

# Names become parts of file names, and of the text of configurations.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}")


@dataclass(frozen=True)
class ServedTensor:
    """An input or output.

    `shape`: without the batch; -1 for an axis of any size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of a model, which all its versions share.

    * `inputs`: patterns first.
    * `batch`: the only batch size; None if any.
    * `domain`: of the patterns: ``amplitude`` or ``counts``; empty for a module without a contract.
    * `batched`: whether every tensor has the batch as its first axis. Otherwise shapes are complete, `batch` is None,
      and a server cannot combine requests.
    """

    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    batch: int | None
    domain: str = ""
    batched: bool = True

    @classmethod
    def of_contract(cls, contract: Contract) -> Interface:
        n, channels = contract.n, contract.channels
        return cls(
            inputs=tuple(ServedTensor(tensor.name, tensor.dtype, tensor.shape) for tensor in contract.inputs),
            outputs=(ServedTensor(contract.output.name, "float32", (n, n, channels, 2)),),
            batch=contract.batch,
            domain=contract.input.domain,
        )

    @classmethod
    def of_graph(cls, model: onnx.ModelProto, path: Path) -> Interface:
        """The interface of a graph without a contract.

        Raises InputError if a name could not be one of a file; `path` names the model.
        """
        inputs, outputs = (tuple(map(_served, values)) for values in (model.graph.input, model.graph.output))
        for tensor in (*inputs, *outputs):
            if not _NAME.fullmatch(tensor.name):
                raise InputError(
                    f"{path}: has a tensor {tensor.name!r}, expected names of letters, digits, '_', '.', ':' and '-'"
                )
        if not all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs)):
            return cls(inputs, outputs, None, batched=False)
        inputs, outputs = (
            tuple(ServedTensor(tensor.name, tensor.dtype, tensor.shape[1:]) for tensor in tensors)
            for tensors in (inputs, outputs)
        )
        return cls(inputs, outputs, None)

    @property
    def is_dynamic(self) -> bool:
        """Whether a server may combine requests to batches of any size."""
        return self.batched and self.batch is None

    def full_shape(self, tensor: ServedTensor) -> tuple[int, ...]:
        """Shape with the batch, -1 for any."""
        if not self.batched:
            return tensor.shape
        return (-1 if self.batch is None else self.batch, *tensor.shape)

    def describe(self, tensor: ServedTensor) -> str:
        """Type and shape for people."""
        batch = "batch" if self.batched else "any"
        sizes = ", ".join(batch if size == -1 else str(size) for size in self.full_shape(tensor))
        return f"{tensor.dtype} [{sizes}]"

    def __str__(self) -> str:
        first, *others = self.inputs
        patterns = " ".join(filter(None, (self.domain, self.describe(first))))
        named = [f"{tensor.name}: {self.describe(tensor)}" for tensor in others]
        return "; ".join([f"{first.name}: {patterns}", *named])


def _served(value: onnx.ValueInfoProto) -> ServedTensor:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return ServedTensor(value.name, dtype, tuple(axis.dim_value or -1 for axis in tensor.shape.dim))
