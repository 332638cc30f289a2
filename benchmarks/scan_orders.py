"""What a segment of a large scan covers, by the order of its positions; a section of `benchmarks/scale.py`.

512 x 512 positions, 6 pixels apart, at N = 64: a raster, a Fermat spiral in its own order, the same spiral sorted into
strips as high as a window, and a raster in random order. For the segment with the largest bounding box: memory, the
processor time of stitching a pattern, the size of its sums in a part file, and the time of adding them when parts are
merged; each with a canvas of the whole box and with tiles, which are taken where they need less than half of it.
`reading` is the time of reading a pattern in the order of the file, and in the order of strips, from files of 16,384
patterns whose pages the system holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
from numpy.typing import NDArray

from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.reconstruction.segment_run import segments
from ptychonnx.runtime.reconstruction.stitching import Stitcher
from ptychonnx.runtime.reconstruction.stitching.canvas import BYTES_PER_PIXEL, TiledCanvas
from ptychonnx.runtime.sharding.part_file import write_segment

__all__ = ["scan_orders"]

SIZE, STEP, GRID = 64, 6, 512
Positions = NDArray[np.float64]


def fermat(count: int) -> Positions:
    """Spiral whose positions have the density of a raster, from the centre outwards."""
    number = np.arange(count)
    radius, angle = STEP * np.sqrt((number + 0.5) / np.pi), number * np.pi * (3 - np.sqrt(5))
    return radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def in_strips(positions: Positions) -> Positions:
    """Positions sorted into strips as high as a window, each from left to right."""
    return positions[_strip_order(positions)]


def _strip_order(positions: Positions) -> NDArray[np.intp]:
    return np.lexsort((positions[:, 1], np.floor(positions[:, 0] / SIZE)))


def _raster(grid: int) -> Positions:
    return STEP * np.stack(np.divmod(np.arange(grid**2), grid), axis=-1).astype(np.float64)


def scan_orders(folder: Path, grid: int = GRID) -> dict[str, Any]:
    """Figures by order of the positions, and of reading."""
    shuffled = np.random.default_rng(0).permutation(_raster(grid))
    orders = {
        "raster": _raster(grid),
        "Fermat spiral": fermat(grid**2),
        "Fermat spiral in strips": in_strips(fermat(grid**2)),
        "random": shuffled,
    }
    _stitching(shuffled[:16], folder)  # what the first one loads counts for none
    figures: dict[str, Any] = {name: _segments(positions, folder) for name, positions in orders.items()}
    return {"patterns": grid**2, "n": SIZE, "orders": figures, "reading": dict(_reading(folder))}


def _segments(positions: Positions, folder: Path) -> dict[str, Any]:
    parts = [positions[part[:, 0]] for part in segments(np.arange(len(positions))[:, None], 16)]
    sides = np.array([np.ptp(part, axis=0) + SIZE + 1 for part in parts])
    largest = int(sides.prod(axis=1).argmax())
    return {
        "segments": len(parts),
        "object_mb": _mb(np.prod(np.ptp(positions, axis=0) + SIZE + 1)),
        "bounding_box_mb": {
            "median": _mb(np.median(sides.prod(axis=1))),
            "largest": _mb(sides[largest].prod()),
        },
        "covered_mb": _mb(_covered(parts[largest])),
        "whole_canvas": _stitching(parts[largest], folder),
        "tiles": _stitching(parts[largest], folder, sparse=True),
    }


def _mb(pixels: float) -> float:
    return round(BYTES_PER_PIXEL * float(pixels) / 1e6, 1)


def _covered(positions: Positions) -> int:
    """Pixels under the windows."""
    corners = np.floor(positions - positions.min(axis=0)).astype(np.intp)
    edges = np.zeros(corners.max(axis=0) + SIZE + 1, np.int32)
    for row, column, sign in ((0, 0, 1), (SIZE, 0, -1), (0, SIZE, -1), (SIZE, SIZE, 1)):
        np.add.at(edges, (corners[:, 0] + row, corners[:, 1] + column), sign)
    return int(np.count_nonzero(edges.cumsum(axis=0).cumsum(axis=1)))


def _stitching(positions: Positions, folder: Path, **options: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((16, SIZE, 2 * SIZE)).astype(np.float32).view(np.complex64)
    weight = np.ones((SIZE, SIZE))
    process = psutil.Process()
    before = process.memory_info().rss
    stitcher = Stitcher(positions, weight, **options)

    def stitch() -> None:
        for start in range(0, len(positions), len(patches)):
            batch = positions[start : start + len(patches)]
            stitcher.add(patches[: len(batch)], batch)

    part, whole = folder / "segment.h5", Stitcher(positions, weight)

    def write() -> None:
        with h5py.File(part, "w") as file:
            write_segment(file, 0, stitcher)

    stitch_s = _seconds(stitch)
    figures = {
        "in_tiles": isinstance(stitcher._canvas, TiledCanvas),
        "memory_mb": round((process.memory_info().rss - before) / 1e6, 1),
        "stitch_ms_per_pattern": round(1e3 * stitch_s / len(positions), 3),
        "write_s": round(_seconds(write), 2),
        "add_s": round(_seconds(lambda: whole.add_sums(stitcher.sums())), 2),
        "part_mb": round(part.stat().st_size / 1e6, 1),
    }
    part.unlink()
    return figures


def _seconds(work: Callable[[], object]) -> float:
    """Processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _reading(folder: Path, count: int = 16_384) -> Iterator[tuple[str, dict[str, float]]]:
    """Milliseconds per pattern in both orders, by the layout of the file."""
    positions = fermat(count)
    rng = np.random.default_rng(0)
    block = rng.poisson(2, (1024, SIZE, SIZE)).astype(np.uint16)
    orders = {"in_file_order_ms": np.arange(count), "in_strips_ms": _strip_order(positions)}
    for name, layout in (
        ("contiguous", {}),
        ("chunks of one pattern", {"chunks": (1, SIZE, SIZE)}),
        ("chunks of 16 patterns", {"chunks": (16, SIZE, SIZE)}),
        ("chunks of 16 patterns, gzip", {"chunks": (16, SIZE, SIZE), "compression": "gzip"}),
    ):
        path = folder / "order.cxi"
        with h5py.File(path, "w") as file:
            file["cxi_version"] = 160
            metres = np.stack([positions[:, 1], positions[:, 0], np.zeros(count)], axis=1) * 1e-8
            file["entry_1/data_1/translation"] = metres
            detector = file.create_group("entry_1/instrument_1/detector_1")
            detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 1.0, 75e-6, 75e-6
            file["entry_1/instrument_1/source_1/wavelength"] = 75e-6 * SIZE * 1e-8
            counts = file.create_dataset("entry_1/data_1/data", (count, SIZE, SIZE), np.uint16, **layout)
            for start in range(0, count, len(block)):
                counts[start : start + len(block)] = block
        figures = {}
        for key, order in orders.items():
            diffraction = read_scan(path).diffraction
            step = getattr(diffraction, "block", 16)
            start_time = time.process_time()
            for start in range(0, count, step):
                diffraction[order[start : start + step]]
            figures[key] = round(1e3 * (time.process_time() - start_time) / count, 3)
        path.unlink()
        yield name, figures
