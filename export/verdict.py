"""What verification found, for a person to read."""

from __future__ import annotations

from collections import Counter

from export.verify import Worst
from runtime.contract import Contract

__all__ = ["operator_lines", "verdict"]


def verdict(contract: Contract, worst: Worst | None = None) -> list[str]:
    """Lines that say what was compared, on which inputs, and how well it agreed.

    Parameters
    ----------
    contract
        Of the artifact.
    worst
        The worst element, known only while exporting.
    """
    lines = [f"{contract.label}: {contract.architecture}, N = {contract.n}, gridsize {contract.gridsize}"]
    parity, weights, reference = contract.parity, contract.weights, contract.reference
    if parity is None:
        lines.append("parity: never compared with a native network")
    else:
        batches = ", ".join(map(str, parity.batches))
        lines += [
            f"parity: {parity.engine} against {contract.provenance.framework}, on {parity.patterns}, "
            f"batches of {batches}",
            f"  largest difference / largest output: {parity.max_relative_error:.2e} "
            f"(allowed {parity.tolerance:.0e}), root mean square {parity.rms_relative_error:.2e}",
        ]
    if worst is not None:
        lines.append(
            f"  worst element {worst.index} of a batch of {worst.batch}: artifact {worst.artifact:.7g}, "
            f"native {worst.native:.7g}"
        )
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


def operator_lines(before: Counter[str], after: Counter[str]) -> list[str]:
    """Operators as the exporter wrote them and as they are published."""
    names = sorted({*before, *after}, key=lambda name: (-after[name], name))
    return [f"{name:<18}{before[name]:>6} -> {after[name]}" for name in names]
