"""Convolutions in onnxruntime: rate against the number of channels, and gain of the passes for upsampled images.

All variants run interleaved with a large float32 matrix product. Results are medians over the rounds of the ratios
within one round.

* ``rates``: ten 3 x 3 convolutions in a row, as a fraction of the rate of the matrix product.
* ``doubled``: an image with repeated pixels, a 3 x 3 convolution, and its consumer (another convolution with as many
  channels, or a head with one channel), before and after `SubpixelConvolutionPass` and `SubpixelHeadPass`.

    python -m benchmarks.convolutions --out benchmarks/results/convolutions.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.passes.subpixel_convolution import SubpixelConvolutionPass
from ptychonnx.export.passes.subpixel_head import SubpixelHeadPass
from ptychonnx.harness.bench.interleaved import interleaved_times, timed
from ptychonnx.runtime.atomic import write_text

GEMM = 1024
LENGTH = 10
# Channels, side of the image.
RATES = [(16, 64), (24, 64), (32, 64), (48, 64), (64, 64), (32, 32), (64, 32), (64, 16), (64, 8)]
# Channels before and after, side before the repetition: the decoders of the demo, and those of twice the width.
DOUBLED = [(64, 32, 8), (32, 16, 16), (16, 16, 32), (128, 64, 8), (64, 32, 16), (32, 32, 32)]
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def model_of(
    nodes: list, channels: int, side: int, outputs: int, last: int, weights: dict
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", outputs, last, last])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def convolution(source: str, name: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, name], [target], kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def repeated(channels: int, side: int) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    names = ["x", *(f"x{number}" for number in range(1, LENGTH)), "y"]
    nodes = [convolution(names[k], f"w{k}", names[k + 1]) for k in range(LENGTH)]
    weights = {
        f"w{k}": generator.normal(size=(channels, channels, 3, 3)) / channels / 3 for k in range(LENGTH)
    }
    return model_of(nodes, channels, side, channels, side, weights)


def doubled(channels: int, outputs: int, side: int, readers: int) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    nodes = [
        # So that the image stands in the engine's own layout, as it does in a network.
        helper.make_node("Conv", ["x", "first"], ["s"], kernel_shape=[1, 1]),
        helper.make_node("Resize", ["s", "", "scales"], ["u"], **NEAREST),
        convolution("u", "w", "c"),
        helper.make_node("Relu", ["c"], ["r"]),
        convolution("r", "v", "y"),
    ]
    weights = {
        "first": generator.normal(size=(channels, channels, 1, 1)),
        "scales": np.array([1, 1, 2, 2]),
        "w": generator.normal(size=(outputs, channels, 3, 3)),
        "v": generator.normal(size=(readers, outputs, 3, 3)),
    }
    return model_of(nodes, channels, side, readers, 2 * side, weights)


def product() -> onnx.ModelProto:
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [make("x", TensorProto.FLOAT, [GEMM, GEMM])],
        [make("y", TensorProto.FLOAT, [GEMM, GEMM])],
        [numpy_helper.from_array(np.random.default_rng(0).random((GEMM, GEMM), dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def after(model: onnx.ModelProto, step: ir.passes.PassBase) -> onnx.ModelProto:
    return ir.to_proto(step(ir.from_proto(model)).model)


def measure(
    models: dict[str, onnx.ModelProto], batch: int, rounds: int, threads: int
) -> dict[str, NDArray[np.float64]]:
    """Seconds of each model in each round."""
    generator, forms = np.random.default_rng(0), {}
    for name, model in models.items():
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        shape = [size if isinstance(size, int) else batch for size in session.get_inputs()[0].shape]
        forms[name] = partial(session.run, None, {"x": generator.random(shape, dtype=np.float32)})
    return interleaved_times({name: partial(timed, form) for name, form in forms.items()}, rounds, rest=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    models = {"product": product()}
    models |= {f"rate {channels} {side}": repeated(channels, side) for channels, side in RATES}
    for channels, outputs, side in DOUBLED:
        inner, head = (doubled(channels, outputs, side, readers) for readers in (outputs, 1))
        name = f"{channels} {outputs} {side}"
        models |= {f"inner {name}": inner, f"inner {name} after": after(inner, SubpixelConvolutionPass())}
        models |= {f"head {name}": head, f"head {name} after": after(head, SubpixelHeadPass())}
    times = measure(models, arguments.batch, arguments.rounds, arguments.threads)
    rates, gains = [], []
    for channels, side in RATES:
        operations = arguments.batch * LENGTH * (3 * channels * side) ** 2 / GEMM**3
        pairs = zip(times[f"rate {channels} {side}"], times["product"], strict=True)
        rates.append(
            {
                "channels": channels,
                "side": side,
                "of_product": statistics.median(operations * b / a for a, b in pairs),
            }
        )
    for channels, outputs, side in DOUBLED:
        found: dict[str, float] = {"channels": channels, "outputs": outputs, "side": side}
        for kind in ("inner", "head"):
            name = f"{kind} {channels} {outputs} {side}"
            found[kind] = statistics.median(
                a / b for a, b in zip(times[name], times[f"{name} after"], strict=True)
            )
        gains.append(found)
    for line in (*rates, *gains):
        print("  ".join(f"{key} {value:.3g}" for key, value in line.items()))
    if arguments.out:
        document = {
            "batch": arguments.batch,
            "rounds": arguments.rounds,
            "threads": arguments.threads,
            "versions": {name: version(name) for name in ("onnxruntime-gpu", "numpy")},
            "rates": rates,
            "doubled": gains,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
