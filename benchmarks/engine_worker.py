"""Worker process that runs artifacts in one engine, controlled by lines of JSON.

`benchmarks.engine_versions` starts this file with the interpreter of another environment. It needs NumPy and the
engine, but nothing of ptychonnx.

    python engine_worker.py onnxruntime|openvino|reference

The input has one JSON object per line, and the output one answer for each:

* ``{"load": path, "threads": 1}``: ``{}``;
* ``{"compare": archive, "smallest": false}``: ``{"errors": [...]}``, for the arrays ``input_0``, ``expected_0``,
  ``input_1`` ... of an .npz file; ``smallest`` takes only the smallest batch. An error that is not finite is null;
* ``{"time": 0}``: ``{"milliseconds": 1.0}``, the time of one run on an input of the last comparison.

Errors of an engine are answered by ``{"error": "..."}``. If the engine crashes, so does the worker.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["OPENERS", "relative_error", "serve"]

Run = Callable[[NDArray], NDArray]


def open_onnxruntime(data: bytes, threads: int) -> Run:
    """Load in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs})[0]


def open_openvino(data: bytes, threads: int) -> Run:
    """Load in OpenVINO on the CPU, in float32."""
    # Without it OpenVINO sends no telemetry; this environment may lack `ptychonnx`.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    core = openvino.Core()
    # Processors with bfloat16 would otherwise compute in it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled: Any = core.compile_model(core.read_model(data), "CPU", settings)
    # The next run overwrites the buffer of the result.
    return lambda inputs: np.array(compiled([inputs])[0])


def open_reference(data: bytes, threads: int) -> Run:
    """Load in the NumPy evaluator of the ONNX project, which chooses its own number of threads."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(data)
    name = evaluator.input_names[0]
    return lambda inputs: evaluator.run(None, {name: inputs})[0]


OPENERS: dict[str, Callable[[bytes, int], Run]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "reference": open_reference,
}


def relative_error(found: NDArray, expected: NDArray) -> float | None:
    """Largest difference over the largest magnitude of `expected`.

    Returns
    -------
    A number, or None if the shapes differ, something is not finite, or `expected` is 0 everywhere.
    """
    if found.shape != expected.shape:
        return None
    scale = float(np.abs(expected.astype(np.float64)).max())
    if not 0 < scale < float("inf"):
        return None
    error = float(np.abs(found.astype(np.float64) - expected).max()) / scale
    return error if np.isfinite(error) else None


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line) or type(error).__name__


class _Worker:
    """One engine, the loaded artifact, and the inputs of the last comparison."""

    def __init__(self, engine: str) -> None:
        self._open = OPENERS[engine]
        self._run: Run | None = None
        self._inputs: list[NDArray] = []

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        self._run = None
        # Engines get bytes, so that their messages contain no local path.
        self._run = self._open(Path(request["load"]).read_bytes(), request["threads"])
        return {}

    def compare(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._run is not None
        with np.load(request["compare"], allow_pickle=False) as archive:
            pairs = [
                (archive[f"input_{index}"], archive[f"expected_{index}"])
                for index in range(len(archive.files) // 2)
            ]
        if request["smallest"]:
            pairs = [min(pairs, key=lambda pair: len(pair[0]))]
        self._inputs = [inputs for inputs, _ in pairs]
        return {"errors": [relative_error(self._run(inputs), expected) for inputs, expected in pairs]}

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._run is not None
        inputs = self._inputs[request["time"]]
        # Other engines have run in the meantime, so the first run finds cold caches.
        self._run(inputs)
        start = time.perf_counter()
        self._run(inputs)
        return {"milliseconds": 1e3 * (time.perf_counter() - start)}


def serve(engine: str, requests: Iterable[str], answers: TextIO) -> None:
    """Answer each line of `requests` with a line of `answers`."""
    worker = _Worker(engine)
    actions = {"load": worker.load, "compare": worker.compare, "time": worker.time}
    for line in requests:
        request = json.loads(line)
        action = next(action for name, action in actions.items() if name in request)
        try:
            answer = action(request)
        except Exception as error:  # engines raise a dozen types of their own
            answer = {"error": _one_line(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Engines may write to standard output, which must hold only the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin, channel)
