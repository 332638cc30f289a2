"""What a convolution node says, with its defaults written out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["Convolution", "SmallImage", "doubled", "make_constant", "read_convolution"]

_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional ``Conv`` of one group, with constant float32 weights.

    Attributes
    ----------
    weight
        [O, I, kernel rows, kernel columns].
    bias
        [O], or None.
    pads
        Zeros before rows, before columns, after rows, after columns.
    strides, dilations
        Of rows and columns.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    pads: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def is_same(self) -> bool:
        """Whether it is 3 x 3, at every pixel, padded so that the size stays."""
        return (
            self.weight.shape[2:] == (3, 3)
            and self.pads == (1, 1, 1, 1)
            and self.strides == self.dilations == (1, 1)
        )


def read_convolution(node: ir.Node) -> Convolution | None:
    """The convolution that a node is; None if it is none, or one of another kind."""
    if node.op_type != "Conv" or node.attributes.get_int("group", 1) != 1:
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    weight = _constant(node.inputs[1])
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = None if bias_value is None else _constant(bias_value)
    if weight is None or weight.ndim != 4 or (bias_value is not None and bias is None):
        return None
    return Convolution(
        weight,
        bias,
        tuple(node.attributes.get_ints("pads", (0, 0, 0, 0))),
        tuple(node.attributes.get_ints("strides", (1, 1))),
        tuple(node.attributes.get_ints("dilations", (1, 1))),
    )


@dataclass(frozen=True)
class SmallImage:
    """A value [B, C, rows, columns] of known size."""

    value: ir.Value
    rows: int
    columns: int


def doubled(value: ir.Value | None) -> SmallImage | None:
    """The image of which a value repeats every row and every column once; None if it does not, or of unknown size."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Resize" or len(node.inputs) != 3 or node.inputs[2] is None:
        return None
    given = {
        name: attribute.as_string()
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.STRING
    }
    scales = ir.convenience.get_const_tensor(node.inputs[2])
    small = node.inputs[0]
    if given != _NEAREST or scales is None or scales.numpy().tolist() != [1, 1, 2, 2]:
        return None
    if small is None or small.shape is None:
        return None
    rows, columns = small.shape[2:]
    return SmallImage(small, rows, columns) if isinstance(rows, int) and isinstance(columns, int) else None


def make_constant(graph: ir.Graph, name: str, values: NDArray) -> ir.Value:
    """A new initialiser; the name is made unique."""
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(values), name=name))
    graph.register_initializer(value)
    return value


def _constant(value: ir.Value | None) -> NDArray | None:
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor.numpy()
