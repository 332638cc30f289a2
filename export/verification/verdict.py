"""The verdict of verification and of the precision gate, for people to read."""

from __future__ import annotations

from ptychonnx.export.verification.verification_report import VerificationReport
from ptychonnx.runtime.contract import Contract, Parity, Quality

__all__ = ["quality_lines", "report_lines", "verdict"]


def verdict(contract: Contract, report: VerificationReport | None = None) -> list[str]:
    """What was compared, on which inputs, and how well it agreed.

    * `contract`: of the artifact.
    * `report`: everything that was compared, which is known only at export.
    """
    lines = [f"{contract.label}: {contract.architecture}, N = {contract.n}, gridsize {contract.gridsize}"]
    weights, reference, conversion = contract.weights, contract.reference, contract.conversion
    if contract.parity is not None:
        lines += _parity_lines(contract.parity, contract.provenance.framework)
    elif contract.quality is None:
        lines.append("parity: never compared with a native network")
    if report is not None:
        lines += report_lines(report)
    elif contract.quality is not None:
        lines += quality_lines(contract.quality)
    if weights is not None:
        lines += [
            f"weights: those of the checkpoint {weights.checkpoint_sha256[:12]}; training changed "
            f"{weights.changed_tensors} of {weights.trainable_tensors} tensors",
            f"  {weights.found_bit_for_bit} of them are in the graph bit for bit; with the initial weights the "
            f"output differs by {weights.initial_output_distance:.2g}",
        ]
    if reference is not None:
        lines.append(
            f"reference: output {reference.output_sha256[:12]}, root mean square {reference.output_rms:.6g}, "
            f"for the {reference.rule}"
        )
    lines.append(
        f"graph: {conversion.exporter}, opset {conversion.opset}, IR {conversion.ir_version}, "
        f"{conversion.precision}; lowering: {conversion.lowering}; "
        f"passes: {', '.join(conversion.passes) or 'none'}"
    )
    return lines


def report_lines(report: VerificationReport) -> list[str]:
    """The worst element in each engine."""
    lines = []
    for engine in dict.fromkeys(case.engine for case in report.cases):
        cases = [case for case in report.cases if case.engine == engine]
        failed = [case for case in cases if not case.passed]
        worst = report.worst_case(engine)
        place = ""
        if worst.worst is not None:
            place = (
                f": {worst.inputs} inputs, element {worst.worst.index} of a batch of {worst.batch}, artifact "
                f"{worst.worst.artifact:.7g}, native {worst.worst.native:.7g}"
            )
        error = "no figure" if worst.max_relative_error is None else f"{worst.max_relative_error:.2e}"
        if len(failed) == len(cases) and all(case.could_not_run for case in cases):
            lines.append(f"{engine}: could not run: {cases[0].reason}")
            continue
        state = f"FAILS in {len(failed)} of" if failed else "agrees in all"
        lines.append(f"{engine}: {state} {len(cases)} cases; worst element {error}{place}")
    if ill := [case for case in report.cases if case.ill_conditioned]:
        kinds = ", ".join(dict.fromkeys(case.inputs for case in ill))
        own = max(float("inf") if case.own_error is None else case.own_error for case in ill)
        lines.append(
            f"ill-conditioned on {kinds} inputs: the native network differs by up to {own:.1e} between float32 and "
            "float64; the artifact is compared with float64 there"
        )
    return lines


def quality_lines(quality: Quality) -> list[str]:
    """Every figure of the float32 artifact and of the reduced one, and how far it may fall."""
    lines = [f"quality: on {quality.scan}, float32 -> reduced"]
    for name, before in quality.parent.items():
        after, allowed = quality.artifact[name], quality.allowed_fall[name]
        lines.append(
            f"  {name.replace('_', ' '):<24}{_figure(before)} -> {_figure(after)} (may fall by {allowed:g})"
        )
    return lines


def _parity_lines(parity: Parity, framework: str) -> list[str]:
    native = "the foreign network run by itself" if framework == "foreign" else framework
    allowed = "" if parity.tolerance is None else f" (allowed {parity.tolerance:.0e})"
    return [
        f"parity: {parity.engine} against {native}, on {parity.patterns}, "
        f"batches of {', '.join(map(str, parity.batches))}",
        f"  largest difference / largest output: {parity.max_relative_error:.2e}{allowed}, root mean square "
        f"{parity.rms_relative_error:.2e}",
    ]


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
