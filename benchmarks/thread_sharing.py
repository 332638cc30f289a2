"""A batch divided among threads (`inference.data_parallel`), against the default of onnxruntime, which parallelises
each operator.

Both run interleaved with a float32 product of 1024 x 1024 matrices. ``times_as_fast`` is the median of the ratios
within a round. ``best_fraction`` compares the rate of the best round of the artifact with that of the best product:
other work on the machine slows the product more than a network, so that medians on a busy machine would be too
favourable.

    python -m benchmarks.thread_sharing zoo/*.onnx --out benchmarks/results/thread_sharing.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ptychonnx.export.graph.inspection import multiply_adds
from ptychonnx.harness.bench.interleaved import interleaved_times, timed
from ptychonnx.harness.bench.native_variants import GEMM_OPERATIONS, load_onnx
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor


def measured(artifact: Path, batch: int, threads: int, rounds: int) -> dict[str, Any]:
    data = artifact.read_bytes()
    model = onnx.load_from_string(data)
    shapes = [
        [axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]] for value in model.graph.input
    ]
    random_numbers = np.random.default_rng(0)
    inputs = [random_numbers.gamma(1.0, 10.0, (batch, *shape)).astype(np.float32) for shape in shapes]
    forms = load_onnx({"artifact": data}, inputs, threads).variants
    expected, found = forms["session.run"](), forms["artifact"]()
    assert expected is not None
    assert found is not None
    times = interleaved_times({name: partial(timed, form) for name, form in forms.items()}, rounds)
    rate = GEMM_OPERATIONS / min(times["gemm"])
    fraction = partial(_fraction, 2 * multiply_adds(model) * batch, rate)
    return {
        "milliseconds": {
            name: 1e3 * statistics.median(times[name]) / batch for name in ("session.run", "artifact")
        },
        "times_as_fast": statistics.median(
            own / shared for own, shared in zip(times["session.run"], times["artifact"], strict=True)
        ),
        "best_fraction": {name: fraction(times[name]) for name in ("session.run", "artifact")},
        "best_gemm_gflop_per_second": rate / 1e9,
        "relative_difference": float(np.abs(found - expected).max() / np.abs(expected).max()),
    }


def _fraction(operations: float, rate: float, times: list[float]) -> float:
    return operations / min(times) / rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = {}
    for artifact in arguments.artifacts:
        each = found[artifact.stem] = measured(artifact, arguments.batch, arguments.threads, arguments.rounds)
        best = each["best_fraction"]
        print(
            f"{artifact.stem}: {each['times_as_fast']:.2f} times as fast, {best['session.run']:.2f} and "
            f"{best['artifact']:.2f} of the matrix product, differs by {each['relative_difference']:.0e}"
        )
    if arguments.out:
        document = {
            "batch": arguments.batch,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "processor": processor(),
            "onnxruntime": version("onnxruntime-gpu"),
            "artifacts": found,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
