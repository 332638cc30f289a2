"""Verification: outputs of a graph in every engine against those of the network it was converted from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.verification.engines import Engine
from ptychonnx.export.verification.inputs import VerificationInputs
from ptychonnx.export.verification.verification_report import (
    DECIDING_ENGINES,
    Case,
    VerificationReport,
    WorstElement,
)
from ptychonnx.runtime.errors import VerificationError

__all__ = ["BATCHES", "TOLERANCE", "Predict", "compare", "relative_difference", "verify"]

TOLERANCE = 1e-4
BATCHES = (1, 3, 16)
# Batch sizes of slow engines: the reference evaluator computes in NumPy.
_BATCHES_OF = {"reference": (1,)}

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
) -> VerificationReport:
    """Run every kind of input in every engine at several batch sizes.

    Parameters
    ----------
    engines
        Functions that load the graph, by the short name of the engine.
    native
        The network that the graph was converted from.
    inputs
        Kinds of input; the first one sets the scale.
    tolerance
        Of the largest difference divided by the scale.
    batches
        Batch sizes; each batch continues where the previous one ended, and starts again after the last input.
    locate
        Finds the first layer that differs, given the short name of the engine and the inputs; called for the first
        failure. See `ptychonnx.export.verification.first_difference.locate`.
    decide
        Engines whose names start with this decide about publication; others are only reported.

    Returns
    -------
    The report, whether or not every case passed: see `VerificationReport.raise_on_refusal`.
    """
    first_scale = _largest(native(*inputs[0].batch(0, max(batches))))
    expected: dict[tuple[str, int, int], NDArray] = {}
    cases: list[Case] = []
    difference = None
    for short_name, load in engines.items():
        name, engine = _load(short_name, load)
        sizes = [size for size in batches if size in _BATCHES_OF.get(short_name, batches)] or batches
        for kind in inputs:
            start = 0
            for size in sizes:
                batch = kind.batch(start, size)
                key = (kind.kind, start, size)
                start += size
                if key not in expected:
                    expected[key] = native(*batch)
                scale = max(_largest(expected[key]), 1e-3 * first_scale)
                case = _run(engine, batch, expected[key], scale, tolerance, kind.kind, name)
                cases.append(case)
                if not case.passed and difference is None and locate and case.worst:
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
    scale: float,
    tolerance: float,
    kind: str,
    name: str,
) -> Case:
    try:
        if isinstance(engine, VerificationError):
            raise engine
        output = engine(*batch)
    except VerificationError as error:
        return _without_figure(str(error), inputs=kind, engine=name, batch=len(expected), scale=scale)
    return compare(output, expected, scale=scale, tolerance=tolerance, inputs=kind, engine=name)


def compare(
    output: NDArray, expected: NDArray, *, scale: float, tolerance: float, inputs: str, engine: str
) -> Case:
    """Compare the output of an engine with the native output for the same batch.

    NaN or infinity on either side counts as an infinite difference, even if both sides have it.
    """
    case: dict = {"inputs": inputs, "engine": engine, "batch": len(expected), "scale": scale}
    if output.shape != expected.shape:
        return _without_figure(
            f"the artifact returns {output.shape}, the native network {expected.shape}", **case
        )
    with np.errstate(invalid="ignore"):
        difference = np.abs(output.astype(np.float64) - expected)
    difference = np.where(np.isfinite(difference), difference, np.inf)
    index = np.unravel_index(int(difference.argmax()), difference.shape)
    error = float(difference[index]) / scale if scale > 0 else float("inf")
    rms = float(np.sqrt(np.mean(np.square(difference)))) / scale if np.isfinite(error) else None
    return Case(
        **case,
        max_relative_error=error if np.isfinite(error) else None,
        rms_relative_error=rms,
        worst=WorstElement(
            index=tuple(int(axis) for axis in index),
            artifact=float(output[index]),
            native=float(expected[index]),
        ),
        passed=error <= tolerance,
    )


def _without_figure(reason: str, **case: object) -> Case:
    return Case.model_validate(
        {
            **case,
            "max_relative_error": None,
            "rms_relative_error": None,
            "worst": None,
            "passed": False,
            "reason": reason,
        }
    )


def relative_difference(output: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Largest difference over the largest magnitude of `expected`; infinite if that is 0 or not finite."""
    scale = float(np.abs(expected).max())
    if not (np.isfinite(scale) and scale > 0):
        return float("inf")
    return float(np.abs(output - expected).max()) / scale


def _largest(output: NDArray) -> float:
    return float(np.abs(output[np.isfinite(output)]).max(initial=0))
