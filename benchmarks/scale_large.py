"""A large scan in one process and in parts on Dask; a section of `benchmarks/scale.py`.

Each step leaves its figures in a file, from which an interrupted measurement continues.
"""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.scale_commands import Command, checked, same_objects
from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.harness.simulate.probes import PIXEL_SIZE, WAVELENGTH, make_probe
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

__all__ = ["identity", "large", "large_scan", "whole", "write_large_scan"]

SIZE, STEP, JITTER, PHOTONS = 64, 6, 1, 1e9
DETECTOR_PIXEL = 75e-6
# A large scan repeats after so many positions.
PERIOD = 128
SHARDS, WORKERS = 16, 2
Section = dict[str, Any]


def write_large_scan(path: Path, grid: int, seed: int = 0) -> None:
    """Simulate grid x grid positions and write their counts; one row of a period is in memory.

    Object, positions and counts repeat in both directions, so that the simulation takes little of the time.
    """
    rng = np.random.default_rng(seed)
    period = STEP * PERIOD
    image = np.tile(make_object("lines", (period, period), rng), (2, 2))
    probe = make_probe("zone-plate", SIZE) * np.float32(np.sqrt(PHOTONS))
    jitter = rng.integers(-JITTER, JITTER + 1, (PERIOD, PERIOD, 2))
    repeats = -(-grid // PERIOD)
    raster = np.stack(np.meshgrid(*[SIZE // 2 + JITTER + STEP * np.arange(grid)] * 2, indexing="ij"), axis=-1)
    raster = (raster + np.tile(jitter, (repeats, repeats, 1))[:grid, :grid]).astype(np.float64)
    positions = raster.reshape(-1, 2)
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["distance"] = PIXEL_SIZE * SIZE * DETECTOR_PIXEL / WAVELENGTH
        detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_PIXEL
        source = file.create_group("entry_1/instrument_1/source_1")
        source["wavelength"] = WAVELENGTH
        source["illumination"] = probe
        # The sample moves against the beam.
        sample = np.stack([positions[:, 1], positions[:, 0], np.zeros(len(positions))], axis=1)
        file["entry_1/data_1/translation"] = sample * PIXEL_SIZE
        shape = (len(positions), SIZE, SIZE)
        counts = file.create_dataset("entry_1/data_1/data", shape, np.uint32, chunks=(16, SIZE, SIZE))
        for row in range(min(PERIOD, grid)):
            windows = cut_windows(image, raster[row, :PERIOD], SIZE)
            period_of_row = rng.poisson(forward(windows, probe) ** 2).astype(np.uint32)
            values = np.tile(period_of_row, (repeats, 1, 1))[:grid]
            for start in range(grid * row, len(positions), grid * PERIOD):
                counts[start : start + grid] = values


def identity(artifact: Path, folder: Path) -> Path:
    """A network that only copies its input, with the contract of an artifact."""
    metadata = {entry.key: entry.value for entry in onnx.load(artifact).metadata_props}
    # Without the hash of the other graph.
    contract = Contract.from_json(metadata[CONTRACT_KEY], str(artifact)).model_copy(
        update={"graph_sha256": None}
    )
    side = contract.n
    nodes = [
        helper.make_node("Transpose", ["diffraction"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Unsqueeze", ["last", "axis"], ["real"]),
        helper.make_node("Concat", ["real", "real"], ["object"], axis=4),
    ]
    shapes = {"diffraction": ["batch", 1, side, side], "object": ["batch", side, side, 1, 2]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    axis = numpy_helper.from_array(np.array([4], np.int64), "axis")
    graph = helper.make_graph(nodes, "identity", ends[:1], ends[1:], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    path = folder / "identity.onnx"
    onnx.save(model, path)
    return path


def large_scan(patterns: int, folder: Path) -> Path:
    """The file of a scan, which is simulated if it is not there."""
    grid = math.isqrt(patterns)
    path = folder / f"scan_{grid}.cxi"
    if not path.exists():
        start, partial = time.perf_counter(), path.with_suffix(".partial")
        write_large_scan(partial, grid)
        partial.rename(path)
        print(f"simulated in {time.perf_counter() - start:.0f} s", flush=True)
    return path


def large(network: Sequence[str], scan: Path, folder: Path, compared: int | None = None) -> Section:
    """16 parts on Dask against one process that takes the first patterns alone or all, both at the same time.

    `network` is the artifact, and options of how it runs.
    """
    folder.mkdir(exist_ok=True)
    with h5py.File(scan) as file:
        patterns = len(file["entry_1/data_1/data"])
    compared = compared or patterns
    first = scan if compared == patterns else folder / f"{scan.stem}_first.cxi"
    steps = _Steps(folder / f"{scan.stem}.json")
    parts = folder / "parts"
    if not first.exists():
        _copy_first(scan, first, compared)
    runs = steps("runs", lambda: _runs(network, scan, first, parts, folder))
    files = sorted(parts.glob("*.h5"), key=lambda path: int(path.stem))
    assert len(files) == SHARDS, files
    whole = folder / "dask.h5"
    with h5py.File(whole) as file:
        shape = list(file["object"].shape)
    section: Section = {
        "patterns": patterns,
        "patterns_of_one_process": compared,
        "n": SIZE,
        "shards": SHARDS,
        "workers": WORKERS,
        "object": shape,
        "scan_mb": round(scan.stat().st_size / 1e6),
        **runs,
        "part_mb": [round(path.stat().st_size / 1e6, 1) for path in files],
    }

    def merge(name: str, options: list[Any]) -> Section:
        merged = folder / f"{name}.h5"
        arguments = ["--quiet", "merge", *files[::-1], "--out", merged, *options]
        return checked(Command(arguments, folder).finish()) | {"same_bits": same_objects(whole, merged)}

    def segment(name: str, options: list[Any]) -> Section:
        out = ["--out", folder / f"{name}.h5", "--shard", f"1/{min(64, patterns // 1024)}", *options]
        return checked(Command(["--quiet", "reconstruct", *network, scan, *out], folder).finish())

    for name, measure, options in (
        ("merge", merge, []),
        ("merge_in_tiles", merge, ["--canvas-memory", "0.02"]),
        ("one_segment", segment, []),
        ("one_segment_in_tiles", segment, ["--canvas-memory", "0.002"]),
    ):
        section[name] = steps(
            name, lambda name=name, measure=measure, options=options: measure(name, options)
        )
    return section


def _copy_first(scan: Path, first: Path, count: int) -> None:
    """Write the first patterns of a scan to a file of their own."""
    data, translation = "entry_1/data_1/data", "entry_1/data_1/translation"
    with h5py.File(scan) as source, h5py.File(first, "w") as target:
        target["cxi_version"] = source["cxi_version"][()]
        source.copy("entry_1/instrument_1", target.create_group("entry_1"))
        target[translation] = source[translation][:count]
        counts = source[data]
        copied = target.create_dataset(data, (count, *counts.shape[1:]), counts.dtype, chunks=counts.chunks)
        for start in range(0, count, 4096):
            part = slice(start, min(start + 4096, count))
            copied[part] = counts[part]


def _runs(network: Sequence[str], scan: Path, first: Path, parts: Path, folder: Path) -> Section:
    """The commands, and `same_bits` of their objects if both took the whole scan; the parts are kept in a folder."""
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    reconstruct = ["--quiet", "reconstruct", *network]
    executor = ["--executor", f"dask:{WORKERS}", "--shards", SHARDS]
    commands = {
        "one_process": Command([*reconstruct, first, "--out", folder / "one.h5"], folder),
        "dask": Command([*reconstruct, scan, "--out", folder / "dask.h5", *executor], folder, parts),
    }
    outcomes: dict[str, Section] = {}
    waiting = [
        threading.Thread(target=lambda name=name, command=command: outcomes.update({name: command.finish()}))
        for name, command in commands.items()
    ]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    section = {name: checked(outcomes[name]) for name in commands}
    if first == scan:
        section["same_bits"] = same_objects(folder / "one.h5", folder / "dask.h5")
    return section


def whole(network: Sequence[str], scan: Path, folder: Path) -> Section:
    """One process on the whole scan alone, if `large` compared a part of it: whether the object has the same bits."""
    out = folder / "whole.h5"
    section = checked(Command(["--quiet", "reconstruct", *network, scan, "--out", out], folder).finish())
    return section | {"same_bits": same_objects(out, folder / "dask.h5")}


class _Steps:
    """Figures of steps by name, which are kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._figures: dict[str, Section] = json.loads(path.read_text()) if path.exists() else {}

    def __call__(self, name: str, measure: Callable[[], Section]) -> Section:
        """The figures of a step, which is measured if they are not known yet."""
        if name not in self._figures:
            self._figures[name] = measure()
            write_text(self._path, json.dumps(self._figures, indent=1) + "\n")
        return self._figures[name]
