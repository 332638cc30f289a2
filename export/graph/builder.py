"""Nodes and constants of a graph, added one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

__all__ = ["Builder"]


class Builder:
    """Collects nodes; every method that adds one gives the name of its result."""

    def __init__(self, prefix: str) -> None:
        """Names begin with `prefix`, so that they meet none of another graph."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._prefix = prefix

    def constant(self, value: ArrayLike, dtype: type = np.float32) -> str:
        """Name of a constant."""
        name = f"{self._prefix}.constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output."""
        name = f"{self._prefix}.{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [*inputs], [name], name=name, **attributes))
        return name

    def cut(self, value: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """A slice along one axis; ``start=-1, stop=-2**31, step=-1`` reverses it."""
        ends = [self.constant([number], np.int64) for number in (start, stop, axis, step)]
        return self.add("Slice", value, *ends)
