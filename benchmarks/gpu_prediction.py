"""What simple models of a GPU predict for the networks of the zoo, without a GPU: computed, not measured.

The time of a batch is the longest of three: starting its kernels one after the other, moving the values of all nodes
through the memory of the device, and its multiplications at the peak rate. Real kernels overlap none of the three
perfectly, so the prediction is a bound from above on the rate. Specifications are those of the vendor.

`python -m benchmarks.gpu_prediction --out benchmarks/results/gpu_prediction.json`
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from ptychonnx.export.graph.inspection import multiply_adds
from ptychonnx.runtime.inference.artifact_path import zoo_names, zoo_path
from ptychonnx.runtime.inference.graph_shapes import inferred_graph

# Operators that only change the view of a tensor, and start no kernel.
VIEWS = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Shape", "Constant"}
# Seconds from one kernel to the next: started by onnxruntime one by one, and replayed as a CUDA graph.
LAUNCH, REPLAY = 6e-6, 1.5e-6
BATCHES = (1, 16, 64, 256, 1024)


@dataclass(frozen=True)
class Card:
    """Peak rates: bytes per second of the memory, float32 operations per second without tensor cores."""

    bandwidth: float
    operations: float


CARDS = {
    "H200": Card(4.8e12, 67e12),
    "A100 80 GB": Card(2.0e12, 19.5e12),
    "RTX 4060 Laptop": Card(256e9, 11.6e12),
}


def traffic(model: onnx.ModelProto) -> tuple[int, int, int]:
    """Kernels, bytes that each pattern moves through the memory, and bytes that each batch moves once."""
    graph = inferred_graph(model)
    sizes = {
        value.name: 4 * math.prod(axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    # What all patterns share: constants, a beam, and what is computed from them alone.
    constants = {tensor.name: 4 * math.prod(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if all(name in constants for name in node.input if name):
            constants |= {name: sizes.get(name, 0) for name in node.output}
    kernels = [node for node in graph.node if node.op_type not in VIEWS]
    names = [name for node in kernels for name in (*node.input, *node.output)]
    return (
        len(kernels),
        sum(sizes.get(name, 0) for name in names if name not in constants),
        sum(constants.get(name, 0) for name in names),
    )


def predict(path: Path) -> dict[str, object]:
    """Kernels of one network, and patterns per second by card, way to start kernels, and batch."""
    model = onnx.load(path)
    kernels, moved, constants = traffic(model)
    operations = 2 * multiply_adds(model)
    rates: dict[str, dict[str, dict[int, list[object]]]] = {}
    for name, card in CARDS.items():
        for way, launch in (("one by one", LAUNCH), ("CUDA graph", REPLAY)):
            for batch in BATCHES:
                bounds = {
                    "launches": kernels * launch,
                    "bandwidth": (batch * moved + constants) / card.bandwidth,
                    "operations": batch * operations / card.operations,
                }
                bound = max(bounds, key=lambda kind: bounds[kind])
                rates.setdefault(name, {}).setdefault(way, {})[batch] = [round(batch / bounds[bound]), bound]
    return {
        "nodes": len(model.graph.node),
        "kernels": kernels,
        "most_frequent": dict(Counter(node.op_type for node in model.graph.node).most_common(12)),
        "mb_per_pattern": moved / 1e6,
        "mflop_per_pattern": operations / 1e6,
        "patterns_per_second": rates,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    document = {
        "computed": True,
        "seconds_per_launch": {"one by one": LAUNCH, "CUDA graph": REPLAY},
        "cards": {name: asdict(card) for name, card in CARDS.items()},
        "networks": {name: predict(zoo_path(name)) for name in zoo_names()},
    }
    parser.parse_args().out.write_text(json.dumps(document, indent=1) + "\n")
