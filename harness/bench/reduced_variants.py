"""Variants of lower precision, judged by the precision gate."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ptychonnx.export.artifact.reduce_artifact import reduce_artifact
from ptychonnx.harness.bench.openvino_variants import OpenVinoSession
from ptychonnx.harness.evaluation.precision_gate import PrecisionGate
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.scan import Scan

__all__ = ["judge_bfloat16", "judge_eight_bit"]


def judge_eight_bit(path: Path, scan: Scan, gate: PrecisionGate) -> tuple[bytes | None, str]:
    """The 8-bit artifact, calibrated on a scan, or None if the gate refuses it; and the verdict."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / path.name
        try:
            reduced = reduce_artifact(path, out, "int8", scan, gate)
        except VerificationError as error:
            return None, f"refused: {error}"
        kept = len(reduced.contract.conversion.float_layers)
        return (
            out.read_bytes(),
            f"accepted, {len(reduced.layers) - kept} of {len(reduced.layers)} layers reduced",
        )


def judge_bfloat16(path: Path, gate: PrecisionGate, threads: int) -> str:
    """Verdict of the gate on the artifact in OpenVINO, in bfloat16."""
    try:
        gate.judge(path, OpenVinoSession(path, "bf16", threads))
    except VerificationError as error:
        return f"refused: {error}"
    return "accepted"
