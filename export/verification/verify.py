"""Verification: outputs of a graph in every engine against those of the network it was converted from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.verification.conditioning import judge_conditioning, rounded_otherwise
from ptychonnx.export.verification.engines import Engine
from ptychonnx.export.verification.inputs import VerificationInputs
from ptychonnx.export.verification.verification_report import (
    DECIDING_ENGINES,
    Case,
    VerificationReport,
    WorstElement,
)
from ptychonnx.runtime.errors import VerificationError

__all__ = [
    "BATCHES",
    "TOLERANCE",
    "Predict",
    "absolute_difference",
    "compare",
    "relative_difference",
    "verify",
]

TOLERANCE = 1e-4
BATCHES = (1, 3, 16)
# Batch sizes of slow engines: the reference evaluator computes in NumPy.
_BATCHES_OF = {"reference": (1,)}
# A difference in an output of more elements is located by its worst batch element alone, since all values of the graph
# are needed at once: 20 GB for a batch of three groups of four patterns of 256 x 256 pixels.
_LARGE = 2**19

Predict = Callable[..., NDArray]


def verify(
    label: str,
    engines: Mapping[str, Callable[[], Engine]],
    native: Predict,
    inputs: Sequence[VerificationInputs],
    *,
    tolerance: float = TOLERANCE,
    batches: Sequence[int] = BATCHES,
    locate: Callable[..., str | None] | None = None,
    decide: str = DECIDING_ENGINES,
    exact: Predict | None = None,
    any_output: bool = False,
) -> VerificationReport:
    """Run every kind of input in every engine at several batch sizes; the report, whether or not every case passed.

    * `engines`: functions that load the graph, by the short name of the engine.
    * `inputs`: kinds of input; the first one sets the scale.
    * `tolerance`: of the largest difference divided by the scale.
    * `batches`: batch sizes; each batch continues where the previous one ended, and starts again after the last input.
    * `locate`: called for the first failure, see `ptychonnx.export.verification.first_difference.difference_locator`.
    * `decide`: engines whose names start with this decide about publication; others are only reported.
    * `exact`: the network in float64, run where a case fails: see `ptychonnx.export.verification.conditioning`.
    * `any_output`: whether NaN and infinity agree with themselves at the same place, and zeros with zeros; otherwise
      they are faults of the network.
    """
    first_scale = _largest(native(*inputs[0].batch(0, max(batches))))
    expected: dict[tuple[str, int, int], NDArray] = {}
    cases: list[Case] = []
    difference = None
    for short_name, load in engines.items():
        name, engine = _load(short_name, load)
        sizes = [size for size in batches if size in _BATCHES_OF.get(short_name, batches)] or batches
        for kind in inputs:
            if kind.beam and short_name == "openvino":
                continue  # it takes defaults as constants
            start = 0
            for size in sizes:
                first = start
                batch = kind.batch(first, size)
                key = (kind.kind, first, size)
                start += size
                if key not in expected:
                    expected[key] = native(*batch)
                scale = max(_largest(expected[key]), 1e-3 * first_scale)
                about = {"inputs": kind.kind, "engine": name, "batch": size, "scale": scale}
                case, output = _run(engine, batch, expected[key], tolerance, any_output, about)
                if not case.passed and exact and output is not None and output.shape == expected[key].shape:
                    other_scale = None if kind is inputs[0] else first_scale
                    natives = [expected[key], *(native(*one) for one in rounded_otherwise(batch))]
                    case = judge_conditioning(case, output, natives, exact(*batch), tolerance, other_scale)
                cases.append(case)
                if not case.passed and difference is None and locate and case.worst:
                    if expected[key].size > _LARGE and 1 in batches:
                        batch = kind.batch(first + case.worst.index[0], 1)
                    difference = locate(short_name, *batch)
    return VerificationReport(
        label=label,
        tolerance=tolerance,
        inputs={kind.kind: kind.rule for kind in inputs},
        cases=cases,
        decide=decide,
        first_difference=difference,
    )


def _load(short_name: str, load: Callable[[], Engine]) -> tuple[str, Engine | VerificationError]:
    """Full name of the engine, and the engine or the reason why it refuses the graph."""
    try:
        engine = load()
    except VerificationError as error:
        return short_name, error
    return engine.name, engine


def _run(
    engine: Engine | VerificationError,
    batch: tuple[NDArray, ...],
    expected: NDArray,
    tolerance: float,
    any_output: bool,
    about: dict[str, Any],
) -> tuple[Case, NDArray | None]:
    """The comparison, and the output of the engine if there is one; `about`: inputs, engine, batch and scale."""
    try:
        if isinstance(engine, VerificationError):
            raise engine
        output = engine(*batch)
    except VerificationError as error:
        return _without_figure(str(error), **about, could_not_run=True), None
    return compare(output, expected, tolerance=tolerance, any_output=any_output, **about), output


def compare(
    output: NDArray,
    expected: NDArray,
    *,
    scale: float,
    tolerance: float,
    inputs: str,
    engine: str,
    batch: int | None = None,
    any_output: bool = False,
) -> Case:
    """Compare the output of an engine with the native output for the same batch.

    Integers and booleans must be equal. Numbers of 16 bits may differ by a few of their last digits. NaN or infinity
    on either side counts as an infinite difference, even if both sides have it, unless `any_output` is set.
    """
    batch = len(expected) if batch is None else batch
    case: dict = {"inputs": inputs, "engine": engine, "batch": batch, "scale": scale}
    if output.shape != expected.shape:
        reason = f"the artifact returns {output.shape}, the native network {expected.shape}"
        return _without_figure(reason, **case)
    if not expected.size:
        return _without_figure("the output is empty, expected at least one number", **case)
    difference = absolute_difference(output, expected, any_output)
    index = np.unravel_index(int(difference.argmax()), difference.shape)
    largest = float(difference[index])
    error = largest / scale if scale > 0 else 0.0 if any_output and largest == 0 else float("inf")
    rms = float(np.sqrt(np.mean(np.square(difference)))) / (scale or 1.0) if np.isfinite(error) else None
    is_exact = expected.dtype.kind in "iub"
    differing = f"{np.count_nonzero(difference)} of {difference.size} integers differ"
    return Case(
        **case,
        max_relative_error=error if np.isfinite(error) else None,
        rms_relative_error=rms,
        worst=WorstElement(
            index=tuple(int(axis) for axis in index),
            artifact=float(output[index]),
            native=float(expected[index]),
        ),
        passed=largest == 0 if is_exact else error <= _allowed(tolerance, expected.dtype),
        reason=differing if is_exact and largest else None,
    )


def absolute_difference(output: NDArray, expected: NDArray, any_output: bool) -> NDArray[np.float64]:
    """Absolute difference of each element, infinite where one side is not finite, see `verify`."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(output.astype(np.float64) - expected.astype(np.float64))
    difference = np.where(np.isfinite(difference), difference, np.inf)
    if expected.dtype.kind in "iub":
        # Integers above 2 ** 53 may differ although their float64 are equal.
        return np.where(output == expected, 0.0, np.maximum(difference, 1.0))
    if any_output:
        same = (output == expected) | (np.isnan(output) & np.isnan(expected))
        difference = np.where(same, 0.0, difference)
    return difference


def _allowed(tolerance: float, dtype: np.dtype) -> float:
    # Engines compute float16 in float32 between nodes, torch rounds after each.
    return max(tolerance, 8 * float(np.finfo(dtype).eps)) if dtype == np.float16 else tolerance


def _without_figure(reason: str, **case: Any) -> Case:
    return Case(
        **case, max_relative_error=None, rms_relative_error=None, worst=None, passed=False, reason=reason
    )


def relative_difference(output: NDArray[np.inexact], expected: NDArray[np.inexact]) -> float:
    """Largest difference over the largest magnitude of `expected`; infinite if that is 0 or not finite."""
    scale = float(np.abs(expected).max())
    if not (np.isfinite(scale) and scale > 0):
        return float("inf")
    return float(np.abs(output - expected).max()) / scale


def _largest(output: NDArray) -> float:
    return float(np.abs(output[np.isfinite(output)].astype(np.float64)).max(initial=0))
