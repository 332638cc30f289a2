"""Verification: outputs of an artifact in every engine against those of the network it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.export.verification.engines import Engine
from ptychonnx.export.verification.inputs import Trial
from ptychonnx.runtime.contract import Parity, ReferencePair
from ptychonnx.runtime.errors import VerificationError

__all__ = [
    "BATCHES",
    "TOLERANCE",
    "Case",
    "Predict",
    "VerificationReport",
    "Worst",
    "compare",
    "parity_of",
    "reference_input",
    "reference_offsets",
    "reference_pair",
    "relative_difference",
    "verify",
]

TOLERANCE = 1e-4
BATCHES = (1, 3, 16)
# An evaluator in NumPy takes its time.
_BATCHES_OF = {"reference": (1,)}
# onnxruntime and the evaluator of the ONNX project decide over publication. Any other engine is reported: its
# failures are its own until proved otherwise.
DECIDE = "onnx"

Predict = Callable[..., NDArray]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Worst(_Part):
    """The element in which artifact and native network differ most."""

    index: tuple[int, ...] = Field(description="in the output, the first number counts within the batch")
    artifact: float
    native: float


class Case(_Part):
    """One batch of one kind of input in one engine."""

    inputs: str
    engine: str
    output: str | None = Field(default=None, description="name, for a network of several outputs")
    batch: int
    max_relative_error: float | None = Field(
        description="largest |difference| over the scale; null if not finite"
    )
    rms_relative_error: float | None = Field(description="root mean square of the same")
    scale: float = Field(description="largest |output| of the native network on this kind of input")
    worst: Worst | None
    passed: bool
    reason: str | None = Field(default=None, description="why there is no figure")


class VerificationReport(_Part):
    """Everything that was compared."""

    label: str
    tolerance: float
    scale_rule: str = (
        "errors are divided by the largest native output on the same kind of input, but not by less than a "
        "thousandth of that on the first kind"
    )
    inputs: dict[str, str] = Field(description="how each kind of input was made")
    cases: list[Case]
    decide: str = Field(default=DECIDE, description="engines whose name begins so decide over publication")
    first_difference: str | None = Field(
        default=None, description="for a failure: the first layer or node whose output differs"
    )

    @property
    def failures(self) -> list[Case]:
        """Cases beyond the tolerance, in any engine."""
        return [case for case in self.cases if not case.passed]

    @property
    def refusals(self) -> list[Case]:
        """Failures in an engine that decides over publication."""
        return [case for case in self.failures if case.engine.startswith(self.decide)]

    def worst_case(self, engine: str = "") -> Case:
        """The case of largest error, of all or of the engines whose name starts so."""
        cases = [case for case in self.cases if case.engine.startswith(engine)]
        return max(cases, key=lambda case: _number(case.max_relative_error))

    def raise_on_refusal(self, where: str = "") -> None:
        """Say why the artifact must not be published.

        Raises
        ------
        VerificationError
            With the figures, the worst element, and the first layer that differs.
        """
        if not self.refusals:
            return
        case = max(self.refusals, key=lambda case: _number(case.max_relative_error))
        raise VerificationError(
            f"parity: {describe(case, self.tolerance)}{_and(self.first_difference)}{where}"
        )


def describe(case: Case, tolerance: float) -> str:
    """A failed case in words."""
    place = f"{case.inputs} inputs in {case.engine}"
    if case.worst is None:
        return f"{case.reason} ({place})"
    return (
        f"relative error {_number(case.max_relative_error):.2e} exceeds {tolerance:.0e}; worst element "
        f"{case.worst.index} of a batch of {case.batch}: artifact {case.worst.artifact:.6g}, native "
        f"{case.worst.native:.6g}, largest output {case.scale:.4g} ({place})"
    )


def _and(difference: str | None) -> str:
    return f"; {difference}" if difference else ""


def _number(error: float | None) -> float:
    return float("inf") if error is None else error


def relative_difference(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Largest difference over the largest magnitude of `expected`; infinite if that is 0 or not finite."""
    scale = float(np.abs(expected).max())
    if not (np.isfinite(scale) and scale > 0):
        return float("inf")
    return float(np.abs(found - expected).max()) / scale


def compare(
    found: NDArray, expected: NDArray, *, scale: float, tolerance: float, inputs: str, engine: str
) -> Case:
    """One output against another of the same batch.

    NaN or infinity on either side is the worst difference there is, even if both have it.
    """
    given: dict = {"inputs": inputs, "engine": engine, "batch": len(expected), "scale": scale}
    if found.shape != expected.shape:
        reason = f"the artifact gives {found.shape}, the native network {expected.shape}"
        return Case(
            **given, max_relative_error=None, rms_relative_error=None, worst=None, passed=False, reason=reason
        )
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - expected)
    difference = np.where(np.isfinite(difference), difference, np.inf)
    index = np.unravel_index(int(difference.argmax()), difference.shape)
    error = float(difference[index]) / scale if scale > 0 else float("inf")
    rms = float(np.sqrt(np.mean(np.square(difference)))) / scale if np.isfinite(error) else None
    return Case(
        **given,
        max_relative_error=error if np.isfinite(error) else None,
        rms_relative_error=rms,
        worst=Worst(
            index=tuple(int(axis) for axis in index),
            artifact=float(found[index]),
            native=float(expected[index]),
        ),
        passed=error <= tolerance,
    )


def verify(
    label: str,
    engines: Mapping[str, Callable[[], Engine]],
    native: Predict,
    trials: Sequence[Trial],
    *,
    tolerance: float = TOLERANCE,
    batches: Sequence[int] = BATCHES,
    locate: Callable[..., str | None] | None = None,
    decide: str = DECIDE,
) -> VerificationReport:
    """Run every kind of input in every engine at several batch sizes.

    Parameters
    ----------
    engines
        Functions that load the artifact, by the engine's short name.
    native
        The network that the artifact was made from.
    trials
        Kinds of input; the first one sets the scale.
    tolerance
        On the largest difference over the scale.
    batches
        Sizes; each takes the next inputs, from the start again after the last.
    locate
        Finds the first layer that differs, given the engine's short name and the inputs; called for the first
        failure. See `ptychonnx.export.verification.first_difference.locate`.

    decide
        Engines whose name begins so decide over publication; others are reported.

    Returns
    -------
    The report, whether everything passed or not: see `VerificationReport.raise_on_refusal`.
    """
    first = _largest(native(*trials[0].batch(0, max(batches))))
    cases: list[Case] = []
    difference = None
    expected: dict[tuple[str, int, int], NDArray] = {}
    for short, load in engines.items():
        engine: Engine | None = None
        name, refused = short, ""
        try:
            engine = load()
            name = engine.name
        except VerificationError as error:
            refused = str(error)
        sizes = [size for size in batches if size in _BATCHES_OF.get(short, batches)] or batches
        for trial in trials:
            start = 0
            for size in sizes:
                inputs = trial.batch(start, size)
                key = (trial.kind, start, size)
                start += size
                if key not in expected:
                    expected[key] = native(*inputs)
                scale = max(_largest(expected[key]), 1e-3 * first)
                case = _run(engine, refused, inputs, expected[key], scale, tolerance, trial.kind, name)
                cases.append(case)
                if not case.passed and difference is None and locate and case.worst:
                    difference = locate(short, *inputs)
    return VerificationReport(
        label=label,
        tolerance=tolerance,
        inputs={trial.kind: trial.rule for trial in trials},
        cases=cases,
        decide=decide,
        first_difference=difference,
    )


def _run(
    engine: Engine | None,
    refused: str,
    inputs: tuple[NDArray, ...],
    expected: NDArray,
    scale: float,
    tolerance: float,
    kind: str,
    name: str,
) -> Case:
    try:
        if engine is None:
            raise VerificationError(refused)
        return compare(engine(*inputs), expected, scale=scale, tolerance=tolerance, inputs=kind, engine=name)
    except VerificationError as error:
        return Case(
            inputs=kind,
            engine=name,
            batch=len(expected),
            max_relative_error=None,
            rms_relative_error=None,
            scale=scale,
            worst=None,
            passed=False,
            reason=str(error),
        )


def _largest(output: NDArray) -> float:
    return float(np.abs(output[np.isfinite(output)]).max(initial=0))


def parity_of(report: VerificationReport) -> Parity:
    """Figures for the contract: onnxruntime's on the first kind of input."""
    kind, origin = next(iter(report.inputs.items()))
    cases = [case for case in report.cases if case.inputs == kind and case.engine.startswith("onnxruntime")]
    return Parity(
        max_relative_error=max(_number(case.max_relative_error) for case in cases),
        rms_relative_error=max(_number(case.rms_relative_error) for case in cases),
        tolerance=report.tolerance,
        batches=sorted({case.batch for case in cases}),
        patterns=origin,
        engine=cases[0].engine,
    )


def reference_input(channels: int, n: int, flux: float, dtype: str = "float32") -> tuple[str, NDArray]:
    """An input that anyone can make again, and the rule in words.

    The legacy generator of NumPy is used since its numbers never change.

    Parameters
    ----------
    channels, n
        The input is [2, C, N, N].
    flux
        Mean photons in a pattern.
    dtype
        ``float32`` for amplitudes, ``uint16`` for counts.
    """
    mean = round(flux / n**2, 6)
    shape = (2, channels, n, n)
    counts = np.random.RandomState(0).poisson(mean, shape)
    drawn = f"numpy.random.RandomState(0).poisson({mean}, {shape})"
    if dtype == "uint16":
        most = np.iinfo(np.uint16).max
        return f"uint16, at most {most}, of {drawn}", np.minimum(counts, most).astype(np.uint16)
    return f"float32 square root of {drawn}", np.sqrt(counts).astype(np.float32)


def reference_offsets(gridsize: int, n: int) -> tuple[str, NDArray[np.float32]]:
    """Offsets [2, gridsize ** 2, 2] to go with `reference_input`, and the rule in words."""
    step = n / 8 + 0.25
    rows, columns = np.divmod(np.arange(gridsize**2), gridsize)
    grid = np.stack([rows, columns], axis=1) * np.float32(step)
    return f"offsets on a grid of {step:g} pixels, then of {step / 2:g}", np.stack([grid, grid / 2]).astype(
        np.float32
    )


def reference_pair(artifact: Predict, rule: str, *inputs: NDArray) -> ReferencePair:
    """Hashes of all inputs and of the output they give.

    The hash of the output may differ on another processor; its root mean square then still tells.
    """
    output = artifact(*inputs)
    given = b"".join(np.ascontiguousarray(part).tobytes() for part in inputs)
    return ReferencePair(
        rule=rule,
        input_sha256=hashlib.sha256(given).hexdigest(),
        output_sha256=hashlib.sha256(np.ascontiguousarray(output).tobytes()).hexdigest(),
        output_rms=float(np.sqrt(np.mean(np.square(output, dtype=np.float64)))),
    )
