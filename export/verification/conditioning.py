"""Ill-conditioned networks: a difference that is the network's own rounding error is told apart from a wrong graph.

The network in float64 is the measure. Where its own output in float32 differs from that by about the tolerance or more,
no graph can agree with it: the graph is right if it is about as close to float64 as the network itself. How far the
network is away depends on how its sums happen to be rounded, so it also runs on inputs that are rounded otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.verification.verification_report import Case

__all__ = ["judge_conditioning", "rounded_otherwise"]

# How much farther from float64 the graph may be than the network in float32: sums in another order differ so much.
_FACTOR = 4.0
# Beyond this error of the network itself, a comparison proves little.
_LITTLE = 1e-2
# Beyond this one, it proves nothing.
_NOTHING = 0.5


def rounded_otherwise(inputs: Sequence[NDArray]) -> Iterator[list[NDArray]]:
    """The inputs with each number of single precision up or down by about one rounding error, three times."""
    random = np.random.default_rng(0)
    for _ in range(3):
        yield [
            one * (1 + np.finfo(np.float32).eps * random.choice([-1, 1], one.shape)).astype(np.float32)
            if one.dtype == np.float32
            else one
            for one in inputs
        ]


def judge_conditioning(
    case: Case,
    output: NDArray,
    natives: Sequence[NDArray],
    exact: NDArray,
    tolerance: float,
    first_scale: float | None,
) -> Case:
    """A failed case again, with the network's own error if that explains it; passed if the graph is as exact.

    * `output`, `natives`, `exact`: of the graph, of the network in float32 (on these inputs and on
      `rounded_otherwise`), and of the network in float64.
    * `first_scale`: largest output on the inputs that set the scale; None for these inputs themselves, on which the
      network must have two digits itself. On others, such as zeros, rounding errors are judged on that scale too.
    """
    if exact.shape != output.shape or natives[0].dtype.kind not in "f" or exact.dtype != np.float64:
        return case
    own = max(_error(native, exact, case.scale) for native in natives)
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
