"""Half precision of a module, accepted if its output stays within a tolerance of float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.precision.fp16 import half_precision
from ptychonnx.export.precision.reducible_layers import with_named_nodes
from ptychonnx.export.verification.engines import cpu_session
from ptychonnx.export.verification.inputs import VerificationInputs
from ptychonnx.export.verification.verify import absolute_difference
from ptychonnx.runtime.errors import UnsupportedError, VerificationError

__all__ = ["half_module"]

_BATCH = 16


def half_module(
    model: onnx.ModelProto, kind: VerificationInputs, tolerance: float, batch: int | None = None
) -> tuple[onnx.ModelProto, float]:
    """The graph with all convolutions and matrix products in float16, and what that costs.

    The cost is the largest difference of an output from float32 on inputs of this kind, divided by its largest value;
    for integers the share that differs.

    Raises UnsupportedError if there is nothing to reduce. Raises VerificationError if the error exceeds the tolerance.
    """
    named = with_named_nodes(model)
    reduction = half_precision(named)
    if not reduction.layers:
        raise UnsupportedError(
            "fp16: the graph has no convolution or matrix product in float32, expected one"
        )
    inputs = kind.batch(0, batch or _BATCH)
    expected = _outputs(named, inputs)
    # The CPU provider omits the roundings between nodes, so they are written out for the measurement.
    found = _outputs(reduction.emulate(reduction.layers), inputs)
    error = max(_error(value, other) for value, other in zip(found, expected, strict=True))
    if not error <= tolerance:
        raise VerificationError(
            f"fp16: differs from float32 by {error:.1e} of the largest output on {kind.kind} inputs, allowed is "
            f"{tolerance:.0e} (--precision-tolerance)"
        )
    return reduction.build(reduction.layers), error


def _outputs(model: onnx.ModelProto, inputs: Sequence[NDArray]) -> list[NDArray]:
    session = cpu_session(model.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    return [np.asarray(value) for value in session.run(None, dict(zip(names, inputs, strict=True)))]


def _error(value: NDArray, expected: NDArray) -> float:
    if expected.dtype.kind in "iub":
        return float(np.mean(value != expected))
    scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=0)) or 1.0
    return float(absolute_difference(value, expected, True).max(initial=0)) / scale
