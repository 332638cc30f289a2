"""Weights and attributes of a convolution node, with defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import float_constant, input_at

__all__ = ["Convolution", "read_convolution"]


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional ``Conv`` of one group, with constant float32 weights.

    * `weight`: [O, I, kernel rows, kernel columns].
    * `bias`: [O], or None.
    * `pads`: zeros before rows, before columns, after rows, after columns.
    * `strides`, `dilations`: of rows and columns.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    pads: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def keeps_size(self) -> bool:
        """Whether it is 3 x 3, computed at every pixel, and padded such that the size stays."""
        return (
            self.weight.shape[2:] == (3, 3)
            and self.pads == (1, 1, 1, 1)
            and self.strides == self.dilations == (1, 1)
        )


def read_convolution(node: ir.Node) -> Convolution | None:
    """The convolution that a node computes; None if it is not such a convolution."""
    if node.op_type != "Conv" or node.attributes.get_int("group", 1) != 1:
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    weight = float_constant(node.inputs[1])
    bias = float_constant(input_at(node, 2))
    if weight is None or weight.ndim != 4 or (bias is None and input_at(node, 2) is not None):
        return None
    return Convolution(
        weight,
        bias,
        tuple(node.attributes.get_ints("pads", (0, 0, 0, 0))),
        tuple(node.attributes.get_ints("strides", (1, 1))),
        tuple(node.attributes.get_ints("dilations", (1, 1))),
    )
