"""The report files next to an artifact: JSON for programs, text for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychonnx.export.verification.verification_report import Case, VerificationReport, describe_case
from ptychonnx.runtime.atomic import atomic_path

__all__ = ["report_text", "with_report", "write_refusal"]


@contextmanager
def with_report(report: VerificationReport, artifact: Path) -> Iterator[None]:
    """Publish an artifact in this block, and its report ``<stem>.verification.json`` and ``.txt`` with it, or neither.

    The report is written before the block, under temporary names, so that a full disk is noticed before the artifact
    has its name. The report of an earlier refusal is removed.
    """
    with _written(report, artifact, "verification"):
        yield
    for path in _paths(artifact, "refused"):
        path.unlink(missing_ok=True)


def write_refusal(report: VerificationReport, artifact: Path) -> Path:
    """Write the report of a graph that was refused next to that of an earlier artifact; the path of its text."""
    with _written(report, artifact, "refused"):
        return _paths(artifact, "refused")[1]


def report_text(report: VerificationReport) -> str:
    """The verdict first, then the failures, then every figure."""
    failures = report.failures
    state = "refused" if report.refusals else "verified"
    lines = [
        f"{report.label}: {state}, {len(report.cases) - len(failures)} of {len(report.cases)} cases pass"
    ]
    worst = report.worst_case()
    if not failures and worst.worst is not None:
        lines.append(
            f"largest relative error {worst.error:.2e} (allowed {report.tolerance:.0e}): "
            f"{worst.inputs} inputs in {worst.engine}, element {worst.worst.index} of a batch of {worst.batch}"
        )
    lines += [f"FAILED {describe_case(case, report.tolerance)}" for case in failures]
    if report.first_difference:
        lines.append(report.first_difference)
    lines += ["", f"Scale: {report.scale_rule}.", ""]
    lines += [f"{kind:<10} {rule}" for kind, rule in report.inputs.items()]
    row = "{:<10} {:>5} {:>9} {:>9} {:<20} {:>13} {:>13}"
    engine = None
    for case in report.cases:
        if case.engine != engine:
            engine = case.engine
            header = row.format("inputs", "batch", "largest", "rms", "worst element", "artifact", "native")
            lines += ["", engine, header]
        lines.append(row.format(*_cells(case)) + ("" if case.passed else "  FAILED"))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cells(case: Case) -> list[str]:
    def figure(value: float | None) -> str:
        return "not finite" if value is None else f"{value:.2e}"

    cells = [case.inputs, str(case.batch), figure(case.max_relative_error), figure(case.rms_relative_error)]
    if case.worst is None:
        return [*cells, "-", "-", "-"]
    element = ",".join(map(str, case.worst.index))
    return [*cells, element, f"{case.worst.artifact:.7g}", f"{case.worst.native:.7g}"]


def _paths(artifact: Path, state: str) -> tuple[Path, Path]:
    return artifact.with_suffix(f".{state}.json"), artifact.with_suffix(f".{state}.txt")


@contextmanager
def _written(report: VerificationReport, artifact: Path, state: str) -> Iterator[None]:
    """Write both files before the block, and give them their names after it."""
    json, text = _paths(artifact, state)
    with atomic_path(json) as partial_json, atomic_path(text) as partial_text:
        partial_json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial_text.write_text(report_text(report), encoding="utf-8")
        yield
