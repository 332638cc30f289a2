"""Artifacts in OpenVINO, in float32 and bfloat16."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from numpy.typing import NDArray

from ptychonnx.export.artifact.reduce_artifact import reduce_artifact
from ptychonnx.harness.bench.measuring_process import LoadedVariants, Variant
from ptychonnx.harness.evaluation.precision_gate import PrecisionGate
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.inference.openvino_run import compile_openvino, has_bfloat16
from ptychonnx.runtime.scan import Scan

__all__ = [
    "BFLOAT16",
    "FLOAT32",
    "judge_eight_bit",
    "load_openvino",
    "openvino_precisions",
]


Precision = Literal["f32", "bf16"]
FLOAT32, BFLOAT16 = "OpenVINO", "OpenVINO, bfloat16"
_NAMES: dict[Precision, str] = {"f32": FLOAT32, "bf16": BFLOAT16}


def openvino_precisions() -> list[Precision]:
    """Precisions that OpenVINO computes in on this machine without emulation; empty if it is not installed."""
    if find_spec("openvino") is None:
        return []
    return ["f32", "bf16"] if has_bfloat16() else ["f32"]


def load_openvino(
    data: bytes, inputs: Sequence[NDArray], threads: int, precisions: list[Precision]
) -> LoadedVariants:
    """Load a graph in each precision."""
    variants: dict[str, Variant] = {
        _NAMES[precision]: partial(compile_openvino(data, precision, threads, inputs), *inputs)
        for precision in precisions
    }
    return LoadedVariants(variants)


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
