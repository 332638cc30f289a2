"""Sensitivity of layers to a lower precision: the most sensitive ones stay in float32, as few as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.precision.reducible_layers import Reduction
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.runtime.progress import SILENT, Progress

__all__ = ["fewest_in_float", "output_change", "sensitivities"]


def output_change(output: NDArray, expected: NDArray) -> float:
    """Root mean square difference over the standard deviation of `expected`; infinite if `output` is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        power = float(np.mean(np.square(output.astype(np.float64) - expected)))
    if not np.isfinite(power):
        return float("inf")
    return float(np.sqrt(power) / max(float(np.std(expected, dtype=np.float64)), np.finfo(np.float32).tiny))


def sensitivities(
    model: onnx.ModelProto, reduction: Reduction, inputs: Sequence[NDArray], progress: Progress = SILENT
) -> dict[str, float]:
    """`output_change` when one layer alone is reduced, by layer, for one batch of the inputs of a graph in float32."""
    progress.stage("Measuring the sensitivity of layers", total=len(reduction.layers), unit="layers")
    expected = open_onnxruntime(model.SerializeToString())(*inputs)
    changes = {}
    for number, layer in enumerate(reduction.layers, start=1):
        engine = open_onnxruntime(reduction.emulate([layer]).SerializeToString())
        changes[layer] = output_change(engine(*inputs), expected)
        progress.update(number)
    return changes


def fewest_in_float(
    sensitivity: Mapping[str, float], accepts: Callable[[Sequence[str]], bool]
) -> list[str] | None:
    """The fewest layers that must stay in float32 for a network to be accepted, most sensitive first.

    The number is found by bisection, which assumes that one more layer in float32 never makes a network worse, and that
    reducing all is not accepted. The set that is returned has been accepted; None if not even the least sensitive layer
    can be reduced.
    """
    ranked = sorted(sensitivity, key=lambda layer: -sensitivity[layer])
    refused, enough = 0, len(ranked)
    while enough - refused > 1:
        middle = (refused + enough) // 2
        if accepts(ranked[:middle]):
            enough = middle
        else:
            refused = middle
    return ranked[:enough] if enough < len(ranked) else None
