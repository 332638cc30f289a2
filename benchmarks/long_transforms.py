"""Up to which length a Fourier transform is faster as one product with a matrix than as products with its factors.

For each length, both forms of a complex transform are exported and run in turn, in onnxruntime and in OpenVINO with one
thread: `benchmarks/results/long_transforms.json`. `LONGEST_PRODUCT` of
`export/lowering/torch/complex_arithmetic/long_transform.py` comes from here.

    python -m benchmarks.long_transforms
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, fft, nn

from benchmarks.exporter_worker import open_onnx, open_openvino
from benchmarks.interleaved import median_milliseconds
from ptychonnx.export.lowering.torch.complex_arithmetic import long_transform
from ptychonnx.export.lowering.torch.convert import convert_module
from ptychonnx.export.passes import clean
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor

LENGTHS = (256, 384, 512, 128, 1024)
# Transforms at once.
LINES = (8, 256)


class Transform(nn.Module):
    """A transform of complex numbers as pairs, along the last axis."""

    def forward(self, pairs: Tensor) -> Tensor:
        return torch.view_as_real(fft.fft(torch.view_as_complex(pairs)))


def export(length: int, longest_product: int, path: Path) -> None:
    """Write the transform with another limit."""
    usual = long_transform.LONGEST_PRODUCT
    long_transform.LONGEST_PRODUCT = longest_product
    long_transform.factors.cache_clear()
    try:
        model = convert_module(Transform(), np.zeros((1, 8, length, 2), np.float32)).model
    finally:
        long_transform.LONGEST_PRODUCT = usual
        long_transform.factors.cache_clear()
    onnx.save(clean(model).model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/long_transforms.json"))
    parser.add_argument("--note", default="", help="about the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for length in LENGTHS:
            paths = {name: Path(folder) / f"{name}.onnx" for name in ("direct", "factored")}
            for name, path in paths.items():
                export(length, length if name == "direct" else length - 1, path)
            for engine, opener in {"onnxruntime": open_onnx, "OpenVINO": open_openvino}.items():
                runs = {name: opener(path) for name, path in paths.items()}
                for lines in LINES:
                    x = np.random.default_rng(0).normal(size=(lines // 8, 8, length, 2)).astype(np.float32)
                    functions = {name: partial(run, {"diffraction": x}) for name, run in runs.items()}
                    times = median_milliseconds(functions, 0.15)
                    rows.append({"length": length, "lines": lines, "engine": engine, **times})
                    print(rows[-1], f"{times['factored'] / times['direct']:.2f}", flush=True)
                    content = {"processor": processor(), "note": arguments.note, "milliseconds": rows}
                    write_text(arguments.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
