"""What verification found, for a person to read."""

from __future__ import annotations

from collections import Counter

from ptychonnx.export.precision.cost_text import quality_lines
from ptychonnx.export.verification.verify import VerificationReport
from ptychonnx.runtime.contract import Contract

__all__ = ["operator_lines", "verdict"]


def verdict(contract: Contract, report: VerificationReport | None = None) -> list[str]:
    """Lines that say what was compared, on which inputs, and how well it agreed.

    Parameters
    ----------
    contract
        Of the artifact.
    report
        Everything that was compared, known only while exporting.
    """
    lines = [f"{contract.label}: {contract.architecture}, N = {contract.n}, gridsize {contract.gridsize}"]
    parity, weights, reference = contract.parity, contract.weights, contract.reference
    if parity is None and contract.quality is None:
        lines.append("parity: never compared with a native network")
    elif parity is not None:
        batches = ", ".join(map(str, parity.batches))
        allowed = "" if parity.tolerance is None else f" (allowed {parity.tolerance:.0e})"
        lines += [
            f"parity: {parity.engine} against {_native(contract)}, on {parity.patterns}, "
            f"batches of {batches}",
            f"  largest difference / largest output: {parity.max_relative_error:.2e}{allowed}, root mean square "
            f"{parity.rms_relative_error:.2e}",
        ]
    if report is not None:
        lines += report_lines(report)
    if contract.quality is not None and report is None:
        lines += quality_lines(contract.quality)
    if weights is not None:
        lines += [
            f"weights: those of the checkpoint {weights.checkpoint_sha256[:12]}; training changed "
            f"{weights.changed_tensors} of {weights.trainable_tensors} tensors",
            f"  {weights.found_bit_for_bit} of them stand bit for bit in the graph; the initial weights give "
            f"an output that differs by {weights.initial_output_distance:.2g}",
        ]
    if reference is not None:
        lines.append(
            f"reference: output {reference.output_sha256[:12]}, root mean square {reference.output_rms:.6g}, "
            f"for the {reference.rule}"
        )
    conversion = contract.conversion
    lines.append(
        f"graph: {conversion.exporter}, opset {conversion.opset}, IR {conversion.ir_version}, "
        f"{conversion.precision}; lowering: {conversion.lowering}; "
        f"passes: {', '.join(conversion.passes) or 'none'}"
    )
    return lines


def _native(contract: Contract) -> str:
    framework = contract.provenance.framework
    return "the foreign network run by itself" if framework == "foreign" else framework


def report_lines(report: VerificationReport) -> list[str]:
    """Where the largest error stands, engine by engine."""
    lines = []
    for engine in dict.fromkeys(case.engine for case in report.cases):
        cases = [case for case in report.cases if case.engine == engine]
        failed = [case for case in cases if not case.passed]
        worst = report.worst_case(engine)
        place = "" if worst.worst is None else (
            f": {worst.inputs} inputs, element {worst.worst.index} of a batch of {worst.batch}, artifact "
            f"{worst.worst.artifact:.7g}, native {worst.worst.native:.7g}"
        )  # fmt: skip
        error = "no figure" if worst.max_relative_error is None else f"{worst.max_relative_error:.2e}"
        state = f"FAILS in {len(failed)} of" if failed else "agrees in all"
        lines.append(f"{engine}: {state} {len(cases)} cases; worst element {error}{place}")
    return lines


def operator_lines(before: Counter[str], after: Counter[str]) -> list[str]:
    """Operators as the exporter wrote them and as they are published."""
    names = sorted({*before, *after}, key=lambda name: (-after[name], name))
    return [f"{name:<18}{before[name]:>6} -> {after[name]}" for name in names]
