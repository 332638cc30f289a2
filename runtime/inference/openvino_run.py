"""Runs in OpenVINO, for processors of Intel: float32, or bfloat16 where the processor has it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.runtime.errors import DeviceError
from ptychonnx.runtime.inference.data_parallel import is_worth_splitting
from ptychonnx.runtime.inference.openvino_import import import_openvino
from ptychonnx.runtime.inference.predictor import NO_BEAM, Beam

__all__ = ["OpenVinoRun", "compile_openvino", "has_bfloat16"]

# Each size of batch is compiled, which takes about a second: smaller batches than these are filled up.
_COMPILED_SIZES = 3


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 without emulation."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoRun:
    """Runs a graph in OpenVINO. A beam may replace the defaults of its inputs, as in onnxruntime."""

    def __init__(self, data: bytes, bfloat16: bool, threads: int) -> None:
        """Read the graph; it is compiled for each size of batch.

        Raises InputError if OpenVINO is not installed. Raises DeviceError if the processor does not compute in
        bfloat16.

        `data`: a serialised ONNX model.
        """
        if bfloat16 and not has_bfloat16():
            raise DeviceError("openvino:bfloat16: this processor has no bfloat16, expected provider openvino")
        self._data, self._defaults = _without_defaults(data)
        self._precision, self._threads = "bf16" if bfloat16 else "f32", threads
        # By the shapes of the inputs without a batch, and by the size of the batch.
        self._compiled: dict[tuple[tuple[int, ...], ...], dict[int, Callable[..., NDArray[np.float32]]]] = {}
        self._lock = threading.Lock()

    def __call__(self, *inputs: NDArray, beam: Beam = NO_BEAM) -> NDArray[np.float32]:
        """Run one batch [batch, ...] of all inputs; may be called from any thread.

        `beam`: inputs without a batch, by name, which replace their defaults.
        """
        count = len(inputs[0])
        shared = {**self._defaults, **beam}
        with self._lock:
            compiled = self._compiled.setdefault(tuple(array.shape for array in shared.values()), {})
            size = count
            if count not in compiled and len(compiled) >= _COMPILED_SIZES:
                size = min((known for known in compiled if known > count), default=count)
            filled = inputs
            if size > count:
                filled = tuple(array.take(range(size), axis=0, mode="clip") for array in inputs)
            if size not in compiled:
                compiled[size] = compile_openvino(self._data, self._precision, self._threads, filled, shared)
            return compiled[size](*filled, beam=shared)[:count]


def compile_openvino(
    data: bytes,
    precision: str,
    threads: int,
    inputs: Sequence[NDArray],
    without_batch: Beam = NO_BEAM,
) -> Callable[..., NDArray[np.float32]]:
    """Compile a graph for batches of the size of these inputs.

    The fastest way in OpenVINO is with fixed sizes and one stream per thread, if the batch can be divided equally.

    `precision`: ``f32`` or ``bf16``. `without_batch`: inputs without a batch, by name.

    Returns a function of the inputs, and of the inputs without a batch as `beam`, that returns a new array. Only one
    thread may call it.
    """
    core, patterns = import_openvino().Core(), len(inputs[0])
    streams = threads if is_worth_splitting(patterns, threads) and patterns % threads == 0 else 1
    model = core.read_model(data)
    batched = [node for node in model.inputs if node.any_name not in without_batch]
    names = [node.any_name for node in batched]
    shapes = {node.any_name: [patterns // streams, *node.partial_shape[1:]] for node in batched}
    model.reshape(shapes | {name: list(array.shape) for name, array in without_batch.items()})
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
    }
    compiled: Any = core.compile_model(model, "CPU", settings)
    requests = [compiled.create_infer_request() for _ in range(streams)]

    def run(*inputs: NDArray, beam: Beam = NO_BEAM) -> NDArray[np.float32]:
        # OpenVINO shares no memory that is read-only.
        writable = (np.require(array, requirements=("C", "W")) for array in inputs)
        shared = {name: np.require(array, requirements=("C", "W")) for name, array in beam.items()}
        parts = zip(*(np.split(array, streams) for array in writable), strict=True)
        # Each request keeps its input and output until it is started again.
        for request, part in zip(requests, parts, strict=True):
            request.start_async({**dict(zip(names, part, strict=True)), **shared}, share_inputs=True)
        for request in requests:
            request.wait()
        return np.concatenate([request.get_output_tensor().data for request in requests])

    return run


def _without_defaults(data: bytes) -> tuple[bytes, dict[str, NDArray]]:
    """The graph without the defaults of its inputs, which OpenVINO would take for constants; and the defaults."""
    model = onnx.load_from_string(data)
    names = {value.name for value in model.graph.input}
    defaults = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name in names
    }
    if defaults:
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
    return model.SerializeToString(), defaults
