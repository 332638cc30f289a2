"""Artifacts in OpenVINO, in float32 and bfloat16."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.artifact.reduce_artifact import reduce_artifact
from ptychonnx.export.verification.openvino_import import import_openvino
from ptychonnx.harness.bench.measuring_process import LoadedVariants, Variant
from ptychonnx.harness.evaluation.precision_gate import PrecisionGate
from ptychonnx.runtime.errors import UnsupportedError, VerificationError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.data_parallel import is_worth_splitting
from ptychonnx.runtime.inference.predictor import Beam
from ptychonnx.runtime.scan import Scan

__all__ = [
    "BFLOAT16",
    "FLOAT32",
    "OpenVinoSession",
    "judge_bfloat16",
    "judge_eight_bit",
    "load_openvino",
    "openvino_precisions",
]


Precision = Literal["f32", "bf16"]
Run = Callable[..., NDArray[np.float32]]
FLOAT32, BFLOAT16 = "OpenVINO", "OpenVINO, bfloat16"
_NAMES: dict[Precision, str] = {"f32": FLOAT32, "bf16": BFLOAT16}


def openvino_precisions() -> list[Precision]:
    """Precisions that OpenVINO computes in on this machine without emulation; empty if it is not installed."""
    if find_spec("openvino") is None:
        return []
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["f32", "bf16"] if "BF16" in capabilities else ["f32"]


class OpenVinoSession(Session):
    """An artifact that runs in OpenVINO, with the interface of `Session`."""

    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        super().__init__(path, "cpu", threads)
        self._compile = partial(_compile, path.read_bytes(), precision, threads)
        self._compiled: dict[int, Run] = {}

    def _run(self, inputs: Sequence[NDArray], beam: Beam) -> NDArray[np.float32]:
        if beam:
            raise UnsupportedError(
                f"{self.path}: OpenVINO takes the default beam as a constant: specialise it"
            )
        patterns = len(inputs[0])
        if patterns not in self._compiled:
            self._compiled[patterns] = self._compile(inputs)
        return self._compiled[patterns](*inputs)


def load_openvino(
    data: bytes, inputs: Sequence[NDArray], threads: int, precisions: list[Precision]
) -> LoadedVariants:
    """Load a graph in each precision."""
    variants: dict[str, Variant] = {
        _NAMES[precision]: partial(_compile(data, precision, threads, inputs), *inputs)
        for precision in precisions
    }
    return LoadedVariants(variants)


def _compile(data: bytes, precision: Precision, threads: int, inputs: Sequence[NDArray]) -> Run:
    """Compile the graph for batches of the size of these inputs.

    The fastest way in OpenVINO is with fixed sizes and one stream per thread, if the batch can be divided equally.
    """
    core, patterns = import_openvino().Core(), len(inputs[0])
    streams = threads if is_worth_splitting(patterns, threads) and patterns % threads == 0 else 1
    model = core.read_model(data)
    model.reshape({node.any_name: [patterns // streams, *node.partial_shape[1:]] for node in model.inputs})
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
    }
    compiled: Any = core.compile_model(model, "CPU", settings)
    requests = [compiled.create_infer_request() for _ in range(streams)]

    def run(*inputs: NDArray) -> NDArray[np.float32]:
        parts = zip(*(np.split(np.ascontiguousarray(array), streams) for array in inputs), strict=True)
        # Each request keeps its input and output until it is started again.
        for request, part in zip(requests, parts, strict=True):
            request.start_async(dict(enumerate(part)), share_inputs=True)
        for request in requests:
            request.wait()
        return np.concatenate([request.get_output_tensor().data for request in requests])

    return run


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
