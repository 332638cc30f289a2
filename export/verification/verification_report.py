"""Everything that verification compared: one case per batch of inputs and engine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.contract import Parity
from ptychonnx.runtime.errors import VerificationError

__all__ = ["DECIDING_ENGINES", "Case", "VerificationReport", "WorstElement", "describe_case"]

# onnxruntime and the evaluator of the ONNX project decide whether a graph is published. Failures in any other engine
# are reported, since they may be faults of that engine.
DECIDING_ENGINES = "onnx"


class _ReportPart(BaseModel):
    # NaN and infinity would become null, which is no number when the report is read again.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class WorstElement(_ReportPart):
    """The element in which artifact and native network differ most."""

    index: tuple[int, ...] = Field(
        description="in the output; the first number is the index within the batch"
    )
    artifact: float
    native: float


class Case(_ReportPart):
    """One batch of one kind of input in one engine."""

    inputs: str
    engine: str
    output: str | None = Field(default=None, description="name of the output, for a network with several")
    batch: int
    max_relative_error: float | None = Field(
        description="largest |difference| divided by the scale; null if not finite"
    )
    rms_relative_error: float | None = Field(description="root mean square difference divided by the scale")
    scale: float = Field(description="largest |output| of the native network on this kind of input")
    worst: WorstElement | None
    passed: bool
    reason: str | None = Field(
        default=None, description="why there is no figure, or how many integers differ"
    )
    ill_conditioned: bool = Field(
        default=False,
        description="the native network itself differs by more than the tolerance between float32 and float64",
    )
    own_error: float | None = Field(default=None, description="that difference divided by the scale")
    could_not_run: bool = Field(default=False, description="the engine raised an error instead of an answer")

    @property
    def error(self) -> float:
        """`max_relative_error`, or infinity if it is not finite."""
        return float("inf") if self.max_relative_error is None else self.max_relative_error


class VerificationReport(_ReportPart):
    """Every case of one verification."""

    label: str
    tolerance: float
    scale_rule: str = (
        "errors are divided by the largest native output on the same kind of input, but not by less than a "
        "thousandth of that on the first kind"
    )
    inputs: dict[str, str] = Field(description="how each kind of input was generated")
    cases: list[Case]
    decide: str = Field(
        default=DECIDING_ENGINES, description="engines whose names start with this decide about publication"
    )
    first_difference: str | None = Field(
        default=None, description="for a failure: the first layer or node whose output differs"
    )

    @property
    def failures(self) -> list[Case]:
        """Cases that exceed the tolerance, in any engine."""
        return [case for case in self.cases if not case.passed]

    @property
    def refusals(self) -> list[Case]:
        """Failures in an engine that decides about publication.

        An engine that cannot run the graph, because of a limit of its own for example, does not decide if onnxruntime
        and another engine agree with the network in all their cases.
        """
        failed = {case.engine for case in self.failures}
        agreeing = {case.engine for case in self.cases} - failed
        excused = len(agreeing) > 1 and any(engine.startswith("onnxruntime") for engine in agreeing)
        return [
            case
            for case in self.failures
            if case.engine.startswith(self.decide) and not (excused and case.could_not_run)
        ]

    def worst_case(self, engine: str = "") -> Case:
        """The case with the largest error, among the engines whose names start with `engine`."""
        return max(
            (case for case in self.cases if case.engine.startswith(engine)), key=lambda case: case.error
        )

    def raise_on_refusal(self, where: str = "") -> None:
        """Raise if the artifact must not be published.

        Raises VerificationError with the figures, the worst element, and the first layer that differs.

        `where`: text appended to the message.
        """
        if not self.refusals:
            return
        case = max(self.refusals, key=lambda case: case.error)
        difference = f"; {self.first_difference}" if self.first_difference else ""
        raise VerificationError(f"parity: {describe_case(case, self.tolerance)}{difference}{where}")

    def parity(self) -> Parity:
        """Figures for the contract: those of onnxruntime on the first kind of input."""
        kind, origin = next(iter(self.inputs.items()))
        cases = [case for case in self.cases if case.inputs == kind and case.engine.startswith("onnxruntime")]
        rms = [float("inf") if case.rms_relative_error is None else case.rms_relative_error for case in cases]
        return Parity(
            max_relative_error=max(case.error for case in cases),
            rms_relative_error=max(rms),
            tolerance=self.tolerance,
            batches=sorted({case.batch for case in cases}),
            patterns=origin,
            engine=cases[0].engine,
        )


def describe_case(case: Case, tolerance: float) -> str:
    """One line about a case that failed."""
    place = f"{case.inputs} inputs in {case.engine}"
    if case.worst is None:
        return f"{case.reason} ({place})"
    difference = case.reason or f"relative error {case.error:.2e} exceeds {tolerance:.0e}"
    if case.ill_conditioned:
        own = "beyond all digits" if case.own_error is None else f"by {case.own_error:.2e}"
        difference = (
            f"the network is ill-conditioned: in float32 it differs from float64 {own} of the largest output, so that "
            f"nothing closer can be asked of the artifact; {difference}"
        )
    return (
        f"{difference}; worst element "
        f"{case.worst.index} of a batch of {case.batch}: artifact {case.worst.artifact:.6g}, native "
        f"{case.worst.native:.6g}, largest output {case.scale:.4g} ({place})"
    )
