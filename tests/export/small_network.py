"""A small artifact of three convolutions, with a step that one of the precisions degrades, and a scan for it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.scan import Scan

N = 16
LAYERS = ["first", "second", "third"]


def scan_of_noise(patterns: int = 25) -> Scan:
    """Positions on a grid and patterns that differ from each other; no probe, no reference."""
    rng = np.random.default_rng(5)
    side = int(np.sqrt(patterns))
    positions = np.stack(np.divmod(np.arange(patterns), side), axis=-1) * 6.0 + N // 2
    mean = 400 * rng.gamma(1.0, size=(patterns, N, N))
    return Scan(np.sqrt(rng.poisson(mean)).astype(np.float32), positions, name="noise.npz")


def contract_of(network: str, **changes: object) -> Contract:
    """A contract for `small_network`."""
    return Contract.model_validate(
        {
            "label": network,
            "architecture": "small",
            "n": N,
            "input": {"scale": 0.05, "scale_rule": "a guess"},
            "stitching": {"weighting": "window"},
            "probe": {"sha256": None, "modes": 0, "flux": 400.0 * N**2},
            "provenance": {
                "framework": "foreign",
                "versions": {},
                "git_commit": None,
                "parameters": 1,
                "training_data_sha256": "0" * 64,
                "seed": 1,
                "epochs": 1,
                "loss": "none",
                "final_loss": 0.1,
            },
            "conversion": {
                "exporter": "onnx.helper",
                "opset": 20,
                "ir_version": 10,
                "lowering": "none",
                "passes": [],
            },
        }
        | changes
    )


def small_network(trap: Literal["none", "overflow", "outlier"] = "none") -> onnx.ModelProto:
    """Scale, logarithm, three convolutions with ReLUs between, an enlarged skip connection.

    ``overflow``: the second layer gives values beyond float16, which the next step scales down again.
    ``outlier``: the second layer reads one channel of a large constant that it ignores, so that 8 bits which
    span all channels resolve nothing in the others.
    """
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants = {
        "scale": np.float32(0.05),
        "one": np.float32(1),
        "first.weight": weights(4, 1, 3, 3),
        "first.bias": weights(4),
        "second.weight": weights(4, 4, 3, 3),
        "second.bias": weights(4),
        "third.weight": weights(2, 4, 1, 1),
        "scales": np.array([1, 1, 2, 2], dtype=np.float32),
        "last": np.array([3], dtype=np.int64),
    }
    before, after = "relu_1", "features"
    nodes = [
        helper.make_node("Mul", ["diffraction", "scale"], ["scaled"], name="scale"),
        helper.make_node("Add", ["scaled", "one"], ["shifted"], name="shift"),
        helper.make_node("Log", ["shifted"], ["logarithm"], name="log"),
        helper.make_node("Conv", ["logarithm", "first.weight", "first.bias"], ["c1"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["relu_1"], name="relu_1"),
    ]
    if trap == "outlier":
        constants["outlier"] = np.array([1e4, 0, 0, 0], dtype=np.float32).reshape(4, 1, 1)
        constants["second.weight"][:, 0] = 0
        nodes.append(helper.make_node("Add", ["relu_1", "outlier"], ["lifted"], name="lift"))
        before = "lifted"
    nodes += [
        helper.make_node("Conv", [before, "second.weight", "second.bias"], ["c2"], "second", pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["features"], name="relu_2"),
    ]
    if trap == "overflow":
        constants["second.weight"] *= 1e6
        constants["small"] = np.float32(1e-6)
        nodes.append(helper.make_node("Mul", ["features", "small"], ["lowered"], name="lower"))
        after = "lowered"
    nodes += [
        helper.make_node("MaxPool", [after], ["half"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["half", "", "scales"], ["full"], name="enlarge", mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        helper.make_node("Add", ["full", after], ["merged"], name="merge"),
        helper.make_node("Conv", ["merged", "third.weight"], ["parts"], "third"),
        helper.make_node("Add", ["parts", "one"], ["object_parts"], name="vacuum"),
        helper.make_node("Transpose", ["object_parts"], ["turned"], name="turn", perm=[0, 2, 3, 1]),
        helper.make_node("Unsqueeze", ["turned", "last"], ["object"], name="channel"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("diffraction", TensorProto.FLOAT, ["batch", 1, N, N])],
        [helper.make_tensor_value_info("object", TensorProto.FLOAT, ["batch", N, N, 1, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_artifact(path: Path, model: onnx.ModelProto, contract: Contract | None = None) -> Path:
    """Stamp a contract and save."""
    helper.set_model_props(model, {CONTRACT_KEY: (contract or contract_of(path.stem)).to_json()})
    onnx.save(model, path)
    return path


def weights_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    """An initialiser as an array."""
    return next(numpy_helper.to_array(entry) for entry in model.graph.initializer if entry.name == name)


def set_weights(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """Replace an initialiser."""
    tensor = next(entry for entry in model.graph.initializer if entry.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
