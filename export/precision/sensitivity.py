"""Which layers stay in float: those whose reduction alone changes the output most, as few of them as pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.precision.reducible_layers import Reduction
from ptychonnx.export.verification.engines import open_onnxruntime

__all__ = ["fewest_in_float", "output_change", "sensitivities"]


def output_change(found: NDArray, expected: NDArray) -> float:
    """Root mean square difference over the standard deviation of `expected`; infinite if `found` is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        power = float(np.mean(np.square(found.astype(np.float64) - expected)))
    if not np.isfinite(power):
        return float("inf")
    return float(np.sqrt(power) / max(float(np.std(expected, dtype=np.float64)), np.finfo(np.float32).tiny))


def sensitivities(
    model: onnx.ModelProto,
    reduction: Reduction,
    inputs: Sequence[NDArray],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """How much the output changes when one layer alone is reduced, for each layer.

    Parameters
    ----------
    model
        The graph in float32.
    inputs
        One batch for it, every input.
    progress
        Called with the layers done and those in all.

    Returns
    -------
    `output_change` by layer, in the order of the graph.
    """
    expected = open_onnxruntime(model.SerializeToString())(*inputs)
    found = {}
    for number, layer in enumerate(reduction.layers, start=1):
        engine = open_onnxruntime(reduction.emulate([layer]).SerializeToString())
        found[layer] = output_change(engine(*inputs), expected)
        progress(number, len(reduction.layers))
    return found


def fewest_in_float(
    sensitivity: Mapping[str, float], accepted: Callable[[Sequence[str]], bool]
) -> list[str] | None:
    """The smallest number of most sensitive layers which, kept in float, make a network acceptable.

    Found by bisection: keeping one layer more is taken never to do harm. The answer itself has been accepted.

    Parameters
    ----------
    sensitivity
        By layer. Reducing all layers is known not to be accepted.
    accepted
        Called with the layers that would stay in float.

    Returns
    -------
    The layers to keep, most sensitive first; None if not even the least sensitive layer can be reduced.
    """
    ranked = sorted(sensitivity, key=lambda layer: -sensitivity[layer])
    refused, enough = 0, len(ranked)
    while enough - refused > 1:
        middle = (refused + enough) // 2
        if accepted(ranked[:middle]):
            enough = middle
        else:
            refused = middle
    return ranked[:enough] if enough < len(ranked) else None
