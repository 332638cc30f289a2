"""A foreign network as it was read: its graph, its tensors, and how its author runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from ptychonnx.export.adoption.foreign_graph import foreign_names, pattern_shape
from ptychonnx.export.adoption.foreign_model import read_foreign
from ptychonnx.export.adoption.foreign_types import input_type
from ptychonnx.export.adoption.numpy_reference import ForeignNetwork, Run, run_of_graph
from ptychonnx.export.adoption.sidecar import Channel, Specification
from ptychonnx.runtime.errors import InputError

__all__ = ["DFT_AS_PRODUCTS", "Foreign", "describe_graph", "read_network"]

# One of the changes of a foreign graph.
DFT_AS_PRODUCTS = "DFT as products"


@dataclass(frozen=True)
class Foreign:
    """A foreign network.

    A batch is the only size that the graph, or the network as its author runs it, takes; None if any.
    """

    name: str  # of its file, for messages
    model: onnx.ModelProto  # weights are no inputs
    source: str  # name of its input
    heads: dict[str, list[Channel]]  # meaning of the channels of each of its outputs
    dtype: np.dtype  # of its input
    run: Run  # as its author runs it
    run_batch: int | None
    batch: int | None
    changes: tuple[str, ...] = ()  # of the graph so far, for the contract
    versions: dict[str, str] = field(
        default_factory=dict
    )  # of the packages that its code needs, for the contract
    lowering: str = "none"  # of Fourier layers, for the contract
    converted: bool = False  # from code just now, so that graph passes clean it
    exact_run: Run | None = None  # in float64

    @property
    def replaced_dft(self) -> bool:
        """Whether Fourier operators became products, which round differently."""
        return DFT_AS_PRODUCTS in self.changes

    def between_steps(self, specification: Specification) -> ForeignNetwork:
        """The network between its steps in NumPy, from amplitudes to object parts."""
        return ForeignNetwork(self.run, self.heads, self.dtype, specification, self.run_batch)

    def between_steps_in_float64(self, specification: Specification) -> ForeignNetwork | None:
        """The same in float64 from the network's input on; None if unknown."""
        if self.exact_run is None:
            return None
        return ForeignNetwork(
            self.exact_run, self.heads, self.dtype, specification, self.run_batch, np.float64
        )


def read_network(path: Path, specification: Specification) -> Foreign:
    """Read an ONNX file, and check that the specification fits its input and outputs.

    Raises InputError if the file is unsafe or not an ONNX model, or the specification does not fit it.
    """
    model = read_foreign(path)
    try:
        source, heads = foreign_names(model, specification)
        return describe_graph(path.name, model, run_of_graph(model, source, list(heads)), specification)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def describe_graph(name: str, model: onnx.ModelProto, run: Run, specification: Specification) -> Foreign:
    """A foreign network, whose input and outputs are checked against the specification.

    Raises InputError if the specification does not fit the graph.
    """
    source, heads = foreign_names(model, specification)
    (value,) = (value for value in model.graph.input if value.name == source)
    batch = _check_input(value, specification)
    return Foreign(name, model, source, heads, input_type(value), run, batch, batch)


def _check_input(value: onnx.ValueInfoProto, specification: Specification) -> int | None:
    """Check the shape of the foreign input, and return its fixed batch size, or None."""
    wanted = pattern_shape(specification)
    if not value.type.tensor_type.HasField("shape"):
        return None
    axes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    fits = len(axes) == len(wanted) + 1 and all(
        axis in (0, size) for axis, size in zip(axes[1:], wanted, strict=True)
    )
    if not fits:
        raise InputError(
            f"input {value.name!r} is {axes}, the specification leads to [batch, "
            f"{', '.join(map(str, wanted))}] as {specification.input.layout}"
        )
    return axes[0] or None
