"""Artifacts in OpenVINO, in float32 and in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.speed.worker import Form, Loaded
from runtime.session import Session

__all__ = ["BFLOAT16", "FLOAT32", "OpenVinoSession", "load_openvino", "openvino_precisions"]

Precision = Literal["f32", "bf16"]
FLOAT32, BFLOAT16 = "OpenVINO", "OpenVINO, bfloat16"
_FORMS: dict[Precision, str] = {"f32": FLOAT32, "bf16": BFLOAT16}


def openvino_precisions() -> list[Precision]:
    """What OpenVINO computes in on this machine without emulation; nothing if it is not installed."""
    if find_spec("openvino") is None:
        return []
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["f32", "bf16"] if "BF16" in able else ["f32"]


class OpenVinoSession(Session):
    """An artifact that OpenVINO runs, so that a reconstruction can be judged like any other."""

    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        super().__init__(path, "cpu", threads)
        self._compiled = _compile(path.read_bytes(), precision, threads)

    def _run(self, inputs: Sequence[NDArray]) -> NDArray[np.float32]:
        return self._compiled(*map(np.ascontiguousarray, inputs))


def load_openvino(
    data: bytes, inputs: Sequence[NDArray], threads: int, precisions: list[Precision]
) -> Loaded:
    """A graph in each precision."""
    forms: dict[str, Form] = {
        _FORMS[precision]: partial(_compile(data, precision, threads), *inputs) for precision in precisions
    }
    return Loaded(forms)


def _compile(data: bytes, precision: Precision, threads: int) -> Callable[..., NDArray[np.float32]]:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled: Any = core.compile_model(core.read_model(data), "CPU", settings)
    # The result lives in a buffer that the next run overwrites.
    return lambda *inputs: np.array(compiled(inputs)[0])
