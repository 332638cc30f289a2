"""Variants of a network that run in its own framework or in onnxruntime, created inside the measuring process."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.export.verification.denormals import intermediate_denormals
from ptychonnx.harness.bench.measuring_process import LoadedVariants, Variant
from ptychonnx.runtime.inference.data_parallel import DataParallelRun, is_worth_splitting
from ptychonnx.runtime.inference.onnxruntime_session import CPU, session_options
from ptychonnx.train.run import read_run
from ptychonnx.train.trained_network import load_network

__all__ = ["GEMM_OPERATIONS", "GEMM_SIDE", "load_native", "load_onnx"]

GEMM_SIDE = 1024
GEMM_OPERATIONS = 2 * GEMM_SIDE**3


def load_native(
    run: Path,
    inputs: Sequence[NDArray[np.float32]],
    threads: int,
    final_steps: int | None = None,
    device: str = "cpu",
) -> LoadedVariants:
    """Load the network of a run folder in its own framework, eager and compiled.

    * `final_steps`: number of final steps of phase retrieval, if the artifact was exported with another number than the
      run.
    * `device`: ``cpu`` or ``cuda``.

    Returns the variants; their `notes` is the serialised graph as exported, before any pass.
    """
    record = read_run(run)
    if final_steps is not None:
        record = record.with_final_steps(final_steps)
    network = load_network(run, record)
    # Imported by name, because it needs the extra of the framework.
    functions = importlib.import_module(
        f"ptychonnx.export.lowering.{record.framework}.execution_modes"
    ).execution_modes(network, inputs, threads, device)
    converter = importlib.import_module(f"ptychonnx.export.lowering.{record.framework}.convert")
    exported = (
        b"" if device != "cpu" else converter.convert_network(network, *inputs).model.SerializeToString()
    )
    variants: dict[str, Variant] = {name: partial(function, *inputs) for name, function in functions.items()}
    return LoadedVariants(variants, exported)


def load_onnx(
    graphs: Mapping[str, bytes], inputs: Sequence[NDArray], threads: int, whole: bool = False
) -> LoadedVariants:
    """Load graphs in the CPU provider of onnxruntime, and a large matrix product (``gemm``).

    Graphs run as in `ptychonnx.runtime.inference.session.Session`. ``session.run`` is the artifact with all threads
    inside each operator, as onnxruntime runs it by default.

    `whole`: whether the batch is never split: not every input has one.
    `notes` of the result is the `DenormalCount` of the values that the artifact computes from the first input of the
    batch.
    """
    # Before the first session, which flushes denormal numbers to zero in the whole process.
    computed = intermediate_denormals(
        onnx.load_from_string(graphs["artifact"]), *(values if whole else values[:1] for values in inputs)
    )
    variants: dict[str, Variant] = {}
    is_shared = not whole and is_worth_splitting(len(inputs[0]), threads)
    for name, data in graphs.items():
        variants[name] = (
            partial(DataParallelRun(_session(data, 1), threads), *inputs)
            if is_shared
            else _plain(data, inputs, threads)
        )
    if is_shared and "artifact" in graphs:
        variants["session.run"] = _plain(graphs["artifact"], inputs, threads)
    generator = np.random.default_rng(0)
    feed = {name: generator.random((GEMM_SIDE, GEMM_SIDE), dtype=np.float32) for name in ("a", "b")}
    product = _session(_gemm(), threads)

    def gemm() -> None:
        product.run(None, feed)

    return LoadedVariants({**variants, "gemm": gemm}, computed)


def _plain(data: bytes, inputs: Sequence[NDArray], threads: int) -> Variant:
    session = _session(data, threads)
    names = (value.name for value in session.get_inputs())
    return partial(_run, session, dict(zip(names, inputs, strict=True)))


def _run(session: ort.InferenceSession, feed: dict[str, NDArray]) -> NDArray[np.float32]:
    return session.run(None, feed)[0]


def _session(data: bytes, threads: int) -> ort.InferenceSession:
    return ort.InferenceSession(data, session_options(threads), providers=[CPU])


def _gemm() -> bytes:
    make = onnx.helper.make_tensor_value_info
    size = [GEMM_SIDE, GEMM_SIDE]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["c"])],
        "gemm",
        [make(name, onnx.TensorProto.FLOAT, size) for name in ("a", "b")],
        [make("c", onnx.TensorProto.FLOAT, size)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()
