"""Denormal numbers in a graph. They carry nothing, and Intel processors compute them many times more slowly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from ptychonnx.train.initial_retrieval import NEGLIGIBLE

__all__ = ["DenormalCount", "constant_denormals", "count_denormals", "intermediate_denormals"]

_LARGEST_DENORMAL = np.uint32(0x007FFFFF)


@dataclass(frozen=True)
class DenormalCount:
    """Float32 values of a graph.

    Attributes
    ----------
    values
        How many there are.
    denormal
        Those below the smallest normal number, 1.2e-38, and not zero.
    negligible
        Those below 1e-12 of the largest value of their tensor, and not zero; denormal ones are among them.
    """

    values: int
    denormal: int
    negligible: int

    @property
    def share(self) -> float:
        """Fraction of the values that is denormal."""
        return self.denormal / self.values if self.values else 0.0


def count_denormals(tensors: Iterable[NDArray]) -> DenormalCount:
    """Count the values of float32 tensors; others are ignored.

    Bits are compared, not numbers: once a session has asked for it, comparisons in this process take a denormal number
    for zero.
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
    """Count what the operators of a graph compute from inputs, given in the order of the graph.

    Only in a process whose sessions have not asked for denormal numbers as zero: it holds for the whole process.
    """
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    observed.graph.output.extend(
        onnx.ValueInfoProto(name=name) for node in model.graph.node for name in node.output
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(observed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = dict(zip((value.name for value in session.get_inputs()), inputs, strict=True))
    return count_denormals(_tensors(session.run(None, feed)))


def _tensors(outputs: Iterable[object]) -> Iterator[NDArray]:
    return (output for output in outputs if isinstance(output, np.ndarray))
