"""Two-dimensional Fourier transforms of all frequencies as real products: whole, or factored in two steps.

Phase retrieval transforms images [row, part, column] by one product with a matrix [2N, 2N] along each axis. The
factored form (Cooley and Tukey) splits an axis of N = a b into products with matrices [2a, 2a] and [2b, 2b] and twiddle
factors between them, which costs N^2 (a + b) operations instead of N^3, and moves the data more often. Both run in
onnxruntime, next to torch.fft.fft2, interleaved in one process with one thread.

    python -m benchmarks.transforms --out benchmarks/results/transforms.json
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from ptychonnx.harness.bench.interleaved import interleaved_times, timed
from ptychonnx.runtime.atomic import write_text

SIZES = (64, 128, 256, 512)
# Pixels of a batch: that of 16 patterns at N = 128.
PIXELS = 2**18


def real_matrix(size: int) -> np.ndarray:
    """Unitary transform of [part, position] to [part, frequency], float64 [2 size, 2 size], from the left."""
    matrix = np.fft.fft(np.eye(size), norm="ortho")
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


class Product(nn.Module):
    """Whole products, as in `ptychonnx.train.torch.retrieval`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        matrix = real_matrix(size)
        rows = matrix.reshape(2, size, 2, size).transpose(1, 0, 3, 2).reshape(2 * size, 2 * size)
        self.rows, self.columns = (nn.Buffer(torch.tensor(m, dtype=torch.float32)) for m in (rows, matrix.T))

    def forward(self, image: Tensor) -> Tensor:
        size = self.size
        lines = self.rows @ image.reshape(-1, 2 * size, size)
        return (lines.reshape(-1, size, 2 * size) @ self.columns).reshape(-1, size, 2, size)


class Factored(nn.Module):
    """Two products with twiddle factors between them along each axis."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.a = size, 2 ** (int(math.log2(size)) // 2)
        self.b = size // self.a
        # Over i of position = i a + j, and over j.
        self.first, self.second = (
            nn.Buffer(torch.tensor(real_matrix(n).T, dtype=torch.float32)) for n in (self.b, self.a)
        )
        angles = -2 * math.pi / size * np.outer(np.arange(self.a), np.arange(self.b))
        self.cosines, self.sines = (
            nn.Buffer(torch.tensor(part, dtype=torch.float32)) for part in (np.cos(angles), np.sin(angles))
        )

    def forward(self, image: Tensor) -> Tensor:
        """From [row, part, column]: along columns, then along rows."""
        size = self.size
        columns = self.along(image.reshape(-1, 2, size)).reshape(-1, size, 2, size)
        rows = self.along(columns.permute(0, 3, 2, 1).reshape(-1, 2, size)).reshape(-1, size, 2, size)
        return rows.permute(0, 3, 2, 1)

    def along(self, x: Tensor) -> Tensor:
        """[lines, part, position] to [lines, part, frequency]; frequency = k + l b."""
        a, b = self.a, self.b
        x = x.reshape(-1, 2, b, a).permute(0, 3, 1, 2).reshape(-1, a, 2 * b) @ self.first
        real, imaginary = x.reshape(-1, a, 2, b).unbind(2)
        real, imaginary = (
            real * self.cosines - imaginary * self.sines,
            real * self.sines + imaginary * self.cosines,
        )
        x = torch.stack([real, imaginary], dim=1).permute(0, 3, 1, 2).reshape(-1, b, 2 * a) @ self.second
        return x.reshape(-1, b, 2, a).permute(0, 2, 3, 1).reshape(-1, 2, self.size)


def session(module: nn.Module, image: Tensor) -> ort.InferenceSession:
    stream = io.BytesIO()
    torch.onnx.export(module.eval(), (image,), stream, dynamo=True, verbose=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(stream.getvalue(), options, providers=["CPUExecutionProvider"])


def measure(rounds: int) -> list[dict]:
    torch.set_num_threads(1)
    runs, forms = {}, {"product": Product, "factored": Factored}
    for size in SIZES:
        image = torch.randn(PIXELS // size**2, size, 2, size, generator=torch.Generator().manual_seed(0))
        wave = torch.complex(image[:, :, 0], image[:, :, 1]).contiguous()
        truth = torch.fft.fft2(wave, norm="ortho")
        runs[size, "torch.fft"] = partial(torch.fft.fft2, wave, norm="ortho")
        for name, form in forms.items():
            run = session(form(size), image)
            feed = {run.get_inputs()[0].name: image.numpy()}
            (result,) = run.run(None, feed)
            error = np.abs(result[:, :, 0] + 1j * result[:, :, 1] - truth.numpy()).max() / truth.abs().max()
            assert error < 1e-5, (size, name, error)
            runs[size, name] = partial(run.run, None, feed)
    times = interleaved_times({key: partial(timed, run) for key, run in runs.items()}, rounds)
    rows = []
    for size in SIZES:
        row: dict = {"n": size, "batch": PIXELS // size**2}
        for name in ("product", "factored", "torch.fft"):
            row[f"{name}_ms"] = round(
                1000 * float(statistics.median(times[size, name])) * size**2 / PIXELS, 4
            )
        for name in ("factored", "torch.fft"):
            pairs = zip(times[size, "product"], times[size, name], strict=True)
            row[f"product_over_{name}"] = round(statistics.median(a / b for a, b in pairs), 3)
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    versions = {"onnxruntime": ort.__version__, "torch": torch.__version__}
    write_text(arguments.out, json.dumps({"threads": 1, "versions": versions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
