"""Time of an artifact against every other form of the same network, interleaved in one process.

For each run folder these forms are measured, as far as they exist for the framework:

* ``eager``: the network as it was trained;
* ``torch.compile`` of the network, and of its lowered form, or ``tf.function`` and ``XLA``: the framework's own
  compilers;
* ``exporter``: the graph as the exporter wrote it, in onnxruntime;
* ``artifact``: the graph after the passes, as it is published, in onnxruntime.

The largest difference of each form from the eager network is written down beside its time: a fast form that is
wrong is no form to compare with.

Every form runs once in each round, in an order that changes from round to round, so that a machine that
gets slower for a while slows all of them. Figures are medians over the rounds; ratios are medians of the
ratios within one round. A large float32 matrix product runs in each round too: it tells what the machine
could do at that moment, and what part of it the artifact reached.

    python benchmarks/compiled_forms.py study/runs/* --out benchmarks/results/compiled_forms.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from export.opset import DEFAULT_OPSET, to_opset
from export.passes import clean
from runtime.atomic import write_text
from train.network import load_network
from train.run import held_out_scan, read_run

Form = Callable[[NDArray[np.float32]], Any]

GEMM = 1024
# Thread pools spin for a while after their work, at the cost of whoever comes next.
REST = 0.03


def onnxruntime_form(model: onnx.ModelProto) -> Form:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return lambda batch: session.run(None, {name: batch})


def torch_forms(module: Any, example: NDArray[np.float32]) -> dict[str, Form]:
    import torch

    from export.torch.spectral import lower_spectral

    lowered = lower_spectral(module, torch.from_numpy(example[:2])).module

    def form(call: Any) -> Form:
        def run(batch: NDArray[np.float32]) -> Any:
            with torch.no_grad():
                return call(torch.from_numpy(batch)).numpy()

        return run

    return {
        "eager": form(module),
        "torch.compile": form(torch.compile(module)),
        "lowered, torch.compile": form(torch.compile(lowered)),
    }


def tensorflow_forms(model: Any) -> dict[str, Form]:
    import tensorflow as tf

    def eager(batch: NDArray[np.float32]) -> Any:
        return model(tf.constant(batch), training=False).numpy()

    graph = tf.function(lambda batch: model(batch, training=False))
    xla = tf.function(lambda batch: model(batch, training=False), jit_compile=True)
    return {
        "eager": eager,
        "tf.function": lambda batch: graph(tf.constant(batch)).numpy(),
        "XLA": lambda batch: xla(tf.constant(batch)).numpy(),
    }


def multiply_adds(model: onnx.ModelProto) -> float:
    """Multiplications of convolutions and matrix products for one pattern, from inferred shapes."""
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        # A batch of one, wherever it stands.
        shapes[value.name] = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
    total = 0.0
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            total += float(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
        elif node.op_type == "Conv":
            total += float(np.prod(shapes[node.output[0]])) * float(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "ConvTranspose":
            total += float(np.prod(shapes[node.input[0]])) * float(np.prod(shapes[node.input[1]][1:]))
    return total


def gemm_form() -> Callable[[], Any]:
    """A product of square matrices in onnxruntime, with the same threads as the artifacts."""
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["c"])],
        "gemm",
        [make(name, onnx.TensorProto.FLOAT, [GEMM, GEMM]) for name in ("a", "b")],
        [make("c", onnx.TensorProto.FLOAT, [GEMM, GEMM])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {name: np.random.default_rng(0).random((GEMM, GEMM), dtype=np.float32) for name in ("a", "b")}
    return lambda: session.run(None, feed)


def measure(run: Path, batch: int, rounds: int) -> dict[str, Any]:
    record = read_run(run)
    network: Any = load_network(run, record)
    patterns = held_out_scan(run).diffraction[:, None]
    if record.network.gridsize != 1:
        raise SystemExit(f"{run}: gridsize {record.network.gridsize}, this benchmark takes 1")
    inputs = np.ascontiguousarray(patterns.take(range(batch), axis=0, mode="wrap"))

    converter = importlib.import_module(f"export.{record.framework}.convert")
    raw = converter.convert_network(network, inputs).model
    published = clean(to_opset(raw, DEFAULT_OPSET)).model
    native = (
        torch_forms(network.module, inputs)
        if record.framework == "torch"
        else tensorflow_forms(network.model)
    )
    forms = {**native, "exporter": onnxruntime_form(raw), "artifact": onnxruntime_form(published)}
    gemm = gemm_form()

    expected = network.predict(inputs)
    errors = {}
    for name, form in forms.items():
        for _ in range(3):
            found = form(inputs)
        found = found[0] if isinstance(found, list) else found
        errors[name] = float(np.abs(found - expected).max() / np.abs(expected).max())
    gemm()

    times: dict[str, list[float]] = {name: [] for name in forms}
    rates = []
    shuffled = random.Random(0)
    for _ in range(rounds):
        order = list(forms)
        shuffled.shuffle(order)
        for name in order:
            time.sleep(REST)
            forms[name](inputs)  # wakes the threads of this form
            start = time.perf_counter()
            forms[name](inputs)
            times[name].append(1e3 * (time.perf_counter() - start) / batch)
        time.sleep(REST)
        gemm()
        start = time.perf_counter()
        gemm()
        rates.append(2 * GEMM**3 / (time.perf_counter() - start) / 1e9)
    operations = 2 * multiply_adds(published) / 1e9
    artifact = times["artifact"]
    fraction = [operations / (1e-3 * took) / rate for took, rate in zip(artifact, rates, strict=True)]
    return {
        "milliseconds_a_pattern": {name: statistics.median(values) for name, values in times.items()},
        "speedup_of_the_artifact": {
            name: statistics.median(other / own for other, own in zip(values, artifact, strict=True))
            for name, values in times.items()
        },
        "relative_error": errors,
        "gflop_a_pattern": operations,
        "gemm_gflop_per_second": statistics.median(rates),
        "gemm_fraction": statistics.median(fraction),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = {}
    for run in arguments.runs:
        found = results[run.name] = measure(run, arguments.batch, arguments.rounds)
        gemm = f"{found['gemm_fraction']:.2f} of a large GEMM ({found['gemm_gflop_per_second']:.0f} GFLOP/s)"
        print(f"{run.name}: {found['gflop_a_pattern']:.2f} GFLOP a pattern, {gemm}")
        for name, took in found["milliseconds_a_pattern"].items():
            print(f"  {name:<24}{took:8.2f} ms   artifact is {found['speedup_of_the_artifact'][name]:.2f}x   "
                  f"error {found['relative_error'][name]:.0e}")  # fmt: skip
    if arguments.out:
        packages = ("onnxruntime-gpu", "torch", "tensorflow", "numpy")
        document = {
            "batch": arguments.batch,
            "rounds": arguments.rounds,
            "machine": platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in packages},
            "networks": results,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
