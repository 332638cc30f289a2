"""Ill-conditioned networks: a difference that is the network's own rounding error is told apart from a wrong graph.

The network in float64 is the measure. Where its own output in float32 differs from that by about the tolerance or more,
no graph can agree with it: the graph is right if it is about as close to float64 as the network itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.verification.verification_report import Case

__all__ = ["judge_conditioning"]

# How much farther from float64 the graph may be than the network in float32: sums in another order differ so much.
_FACTOR = 4.0
# Beyond this error of the network itself, a comparison proves little.
_LITTLE = 1e-2
# Beyond this one, it proves nothing.
_NOTHING = 0.5


def judge_conditioning(
    case: Case, output: NDArray, native: NDArray, exact: NDArray, tolerance: float, first_scale: float | None
) -> Case:
    """A failed case again, with the network in float64 as the measure.

    Parameters
    ----------
    output, native, exact
        Of the graph, of the network in float32, and of the network in float64.
    first_scale
        Largest output on the inputs that set the scale; None for these inputs themselves, on which the network must
        have two digits itself. On others, such as zeros, rounding errors are judged on that scale too.

    Returns
    -------
    The case with the network's own error, if that explains the difference; passed if the graph is as exact as the
    network.
    """
    if exact.shape != native.shape or native.dtype.kind not in "f" or exact.dtype != np.float64:
        return case
    own = _error(native, exact, case.scale)
    if own <= tolerance / _FACTOR:
        return case
    of_graph = _error(output, exact, case.scale)
    is_as_exact = of_graph <= _FACTOR * own
    if first_scale is None:
        passed = is_as_exact and own <= _LITTLE
    else:
        passed = is_as_exact or own > _NOTHING or case.error * case.scale <= tolerance * first_scale
    return case.model_copy(
        update={"own_error": own if np.isfinite(own) else None, "ill_conditioned": True, "passed": passed}
    )


def _error(output: NDArray, exact: NDArray, scale: float) -> float:
    """Largest difference over the scale, infinite if one side alone has NaN or infinity somewhere."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(output.astype(np.float64) - exact)
        same = (output == exact) | (np.isnan(output) & np.isnan(exact))
    difference = np.where(same, 0.0, np.where(np.isfinite(difference), difference, np.inf))
    return float(difference.max(initial=0.0)) / scale if scale > 0 else float("inf")
