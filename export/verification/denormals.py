"""Denormal numbers in a graph: they are negligible, and Intel processors compute them many times more slowly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ptychonnx.export.verification.engines import open_values
from ptychonnx.train.initial_retrieval import NEGLIGIBLE

__all__ = ["DenormalCount", "constant_denormals", "count_denormals", "intermediate_denormals"]

_LARGEST_DENORMAL = np.uint32(0x007FFFFF)


@dataclass(frozen=True)
class DenormalCount:
    """Numbers of float32 values of a graph; zeros are neither denormal nor negligible."""

    values: int
    denormal: int  # below the smallest normal number, 1.2e-38
    negligible: int  # below 1e-12 of the largest value of their tensor; includes denormal ones

    @property
    def share(self) -> float:
        """Fraction of values that are denormal."""
        return self.denormal / self.values if self.values else 0.0


def count_denormals(tensors: Iterable[NDArray]) -> DenormalCount:
    """Count the values of float32 tensors; other tensors are ignored.

    Bits are compared instead of numbers: once a session has requested it, comparisons in this process treat a denormal
    number as zero.
    """
    values = denormal = negligible = 0
    for tensor in tensors:
        if tensor.dtype != np.float32 or not tensor.size:
            continue
        magnitude = np.abs(tensor)
        bits = np.ascontiguousarray(magnitude).view(np.uint32)
        values += tensor.size
        denormal += int(np.count_nonzero((bits > 0) & (bits <= _LARGEST_DENORMAL)))
        negligible += int(np.count_nonzero((bits > 0) & (magnitude < NEGLIGIBLE * magnitude.max())))
    return DenormalCount(values, denormal, negligible)


def constant_denormals(model: onnx.ModelProto) -> DenormalCount:
    """Count the constants of a graph."""
    return count_denormals(map(numpy_helper.to_array, model.graph.initializer))


def intermediate_denormals(model: onnx.ModelProto, *inputs: NDArray) -> DenormalCount:
    """Count the outputs of all operators of a graph, for inputs in the order of the graph.

    No session of this process may have requested that denormal numbers are treated as zero, which affects the whole
    process.
    """
    return count_denormals(open_values(model.SerializeToString())(*inputs).values())
