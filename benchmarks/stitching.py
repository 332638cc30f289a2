"""Stitching against a plain copy of the same patches, in one interleaved run.

Patches of N x N complex64 lie on a raster, 10 pixels apart, at whole pixels or at fractions of their own. They come in
chunks; every chunk is copied once and added to the canvas of each form, in an order that changes from chunk to chunk,
so that a machine that gets slower for a while slows all of them. Ratios are medians over the chunks of the ratio
within one chunk. The patches of consecutive chunks come from a store larger than the caches, and are copied into
another. With `--clock cpu`, the processor's time for this thread counts, which other programs disturb less.

`before` is the plain form of the same sums: every patch by itself, moved with temporary arrays, Fourier placement
by two transforms of four times as many pixels.

The least that has to be moved for a patch: it is read (8 bytes a pixel), the sums are read and written (2 x 24 bytes);
a copy moves 2 x 8. So no form can be faster than 3.5 copies, unless the sums stay in a cache.

    python -m benchmarks.stitching --out benchmarks/results/stitching.json
"""

from __future__ import annotations

import argparse
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

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.reconstruction.stitching import Stitcher, patch_weight

STEP = 10
LEAST_COPIES = (8 + 2 * 24) / (2 * 8)

Add = Callable[[np.ndarray, np.ndarray], None]


class Before:
    """One patch after the other; the corner of the canvas is at 0."""

    def __init__(self, shape: tuple[int, int], weight: np.ndarray, placement: str) -> None:
        self.move = bilinear_alone if placement == "bilinear" else fourier_alone
        self.weight = weight
        self.sum, self.total = np.zeros(shape, dtype=np.complex128), np.zeros(shape)

    def add(self, patches: np.ndarray, corners: np.ndarray) -> None:
        whole = np.floor(corners).astype(int)
        for patch, (row, column), (down, right) in zip(patches, whole, corners - whole, strict=True):
            values, weight = patch, self.weight
            if down or right:
                values, weight = self.move(values, down, right), bilinear_alone(weight, down, right)
                weight[0] = weight[-1] = weight[:, 0] = weight[:, -1] = 0
            region = slice(row, row + weight.shape[0]), slice(column, column + weight.shape[1])
            self.sum[region] += weight * values
            self.total[region] += weight


def bilinear_alone(image: np.ndarray, down: float, right: float) -> np.ndarray:
    padded = np.pad(image, 1, mode="edge")
    rows = (1 - down) * padded[1:] + down * padded[:-1]
    return (1 - right) * rows[:, 1:] + right * rows[:, :-1]


def fourier_alone(image: np.ndarray, down: float, right: float) -> np.ndarray:
    size = len(image)
    modes = np.fft.fft2(np.pad(image, ((0, size), (0, size)), mode="symmetric"))
    frequency = np.fft.fftfreq(2 * size)
    ramp = np.exp(-2j * np.pi * (frequency[:, None] * down + frequency * right))
    return np.fft.ifft2(modes * ramp)[: size + 1, : size + 1]


def measure(patches: int, size: int, chunk: int, store: int, clock: str) -> dict[str, Any]:
    now = time.perf_counter if clock == "wall" else time.thread_time
    rng = np.random.default_rng(0)
    across = int(np.ceil(np.sqrt(patches)))
    grid = STEP * np.stack(np.divmod(np.arange(patches), across), axis=1).astype(np.float64)
    fractions = rng.uniform(0.05, 0.95, (patches, 2))
    # One more patch at each end makes the canvas begin at 0 and hold all fractions.
    ends = np.array([[0.0, 0.0], grid.max(axis=0) + 1])
    row, column = np.mgrid[:size, :size] - size // 2
    probe = np.exp(-(row**2 + column**2) / (size / 2) ** 2).astype(np.complex64)[None]
    weight = patch_weight("probe", size, probe)
    shape = tuple(int(n) + size + 2 for n in ends[1])

    forms: dict[str, tuple[Add, bool]] = {}
    stitchers = {}
    for name, placement, fractional in (
        ("whole pixels", "bilinear", False),
        ("bilinear", "bilinear", True),
        ("fourier", "fourier", True),
    ):
        before = Before(shape, weight, placement)
        after = Stitcher(ends + size // 2, weight, placement)
        stitchers[name] = before, after
        forms[f"{name}, before"] = before.add, fractional
        forms[f"{name}, after"] = (
            lambda values, corners, after=after: after.add(values, corners + size // 2),
            fractional,
        )

    source = np.empty((store, size, size), dtype=np.complex64)
    target = np.empty_like(source)
    for start in range(0, store, chunk):
        part = rng.standard_normal((chunk, size, size, 2), dtype=np.float32)
        source[start : start + chunk] = part.view(np.complex64)[..., 0]
    target[:] = 0

    times: dict[str, list[float]] = {name: [] for name in ("copy", *forms)}
    shuffled = random.Random(0)
    for start in range(0, patches, chunk):
        count = min(chunk, patches - start)
        here = slice(start % store, start % store + count)
        order = list(times)
        shuffled.shuffle(order)
        for name in order:
            if name == "copy":
                began = now()
                target[here] = source[here]
            else:
                add, fractional = forms[name]
                corners = grid[start : start + count] + (
                    fractions[start : start + count] if fractional else 0
                )
                began = now()
                add(source[here], corners)
            times[name].append((now() - began) / count)

    results = {}
    for name, values in times.items():
        ratio = statistics.median(own / copy for own, copy in zip(values, times["copy"], strict=True))
        results[name] = {"microseconds_a_patch": 1e6 * statistics.median(values), "over_copy": ratio}
    for name, (before, after) in stitchers.items():
        began = now()
        stitched = after.result()
        results[f"{name}, after"]["result_seconds"] = now() - began
        expected = np.divide(before.sum, before.total, out=np.zeros_like(before.sum), where=before.total > 0)
        expected = expected[: stitched.shape[0], : stitched.shape[1]]
        known = stitched.covered & (stitched.weight > 1e-6)
        results[f"{name}, after"]["largest_difference"] = float(
            np.abs(stitched.object - expected)[known].max()
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--store", type=int, default=4096, help="patches in memory, a multiple of the chunk")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = measure(arguments.patches, arguments.size, arguments.chunk, arguments.store, arguments.clock)
    for name, found in results.items():
        print(f"{name:<32}{found['microseconds_a_patch']:9.2f} us  {found['over_copy']:7.2f} copies")
    if arguments.out:
        document = {
            "patches": arguments.patches,
            "size": arguments.size,
            "step": STEP,
            "chunk": arguments.chunk,
            "clock": arguments.clock,
            "least_copies": LEAST_COPIES,
            "machine": platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in ("numpy", "numba")},
            "results": results,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
