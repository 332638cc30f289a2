"""Cost of a reconstruction besides the network: time from file to object, and memory of long scans.

end_to_end_ratio
    Time from a CXI file to the stitched object (`read_scan` and `reconstruct`) over that of bare `session.run` on the
    same patterns in memory, with the same threads and batch. Both run once in each round, in an order that changes from
    round to round; the ratio is the median of the ratios within a round. `one_after_the_other_ratio` is that of the
    same stages without overlap. `processor_time_ratio` compares the processor time of all threads, which other work on
    the machine affects less.
memory_ratio
    Peak memory of `ptychonnx reconstruct`, in a process of its own, for a scan of 50,000 patterns over one of 1,000.
    Both cover the same field of view, with positions drawn from the same square, so that the canvas has the same size
    and only the pipeline differs.

The frames of the given scan are repeated and stored as detectors write them: 32-bit photon counts, one chunk per frame,
bitshuffle and LZ4. The file is in the page cache of the operating system.

    python benchmarks/end_to_end.py models/*.onnx --scan data/test.npz --out benchmarks/results/end_to_end.json
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import onnxruntime as ort

from ptychonnx.harness.bench.interleaved import interleaved_times
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.reconstruction.stitching import Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours

DETECTOR_PIXEL = 75e-6  # m
# `getrusage` would return the peak of the parent if that was larger when the process was started.
CHILD = """
import re, sys
from pathlib import Path
from ptychonnx.harness.cli.app import main
sys.argv = ["ptychonnx", *sys.argv[1:]]
try:
    main()
finally:
    print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def write_cxi(path: Path, scan: Scan, count: int, *, drawn: bool) -> None:
    """Write a scan of `count` patterns with repeated frames; positions are repeated, or drawn at random."""
    frames = np.rint(np.square(np.asarray(scan.diffraction), dtype=np.float64)).astype(np.uint32)
    positions = np.resize(scan.positions, (count, 2))
    if drawn:
        low, high = scan.positions.min(axis=0), scan.positions.max(axis=0)
        positions = np.random.default_rng(0).uniform(low, high, (count, 2))
        positions[:2] = low, high
    pixel, wavelength = scan.pixel_size or 1e-8, scan.wavelength or 1e-10
    with h5py.File(path, "w") as file:
        storage = {"chunks": (1, *frames.shape[1:]), **hdf5plugin.Bitshuffle()}
        data = file.create_dataset("entry_1/data_1/data", (count, *frames.shape[1:]), np.uint32, **storage)
        for start in range(0, count, len(frames)):
            data[start : start + len(frames)] = frames[: count - start]
        translation = np.column_stack([positions[:, ::-1] * pixel, np.zeros(count)])
        file["entry_1/data_1/translation"] = translation
        file["entry_1/instrument_1/detector_1/distance"] = pixel * scan.size * DETECTOR_PIXEL / wavelength
        file["entry_1/instrument_1/detector_1/x_pixel_size"] = DETECTOR_PIXEL
        file["entry_1/instrument_1/source_1/wavelength"] = wavelength
        if scan.probe is not None:
            file["entry_1/instrument_1/source_1/illumination"] = scan.probe


def end_to_end(artifact: Path, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    session = Session(artifact, "cpu", arguments.threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    bare = ort.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    contract = session.contract
    loaded = read_scan(path)
    loaded = replace(loaded, diffraction=np.asarray(loaded.diffraction))
    groups = group_neighbours(loaded.positions, contract.gridsize)
    (inputs,) = session.inputs(loaded, groups)
    batches = [inputs[start : start + arguments.batch] for start in range(0, len(inputs), arguments.batch)]

    def run_bare() -> None:
        for batch in batches:
            bare.run([contract.output.name], {contract.input.name: batch})

    def run_pipeline() -> None:
        reconstruct(session, read_scan(path, estimate_probe=True), batch=arguments.batch)

    def run_in_turn() -> None:
        scan = read_scan(path, estimate_probe=True)
        scan = replace(scan, diffraction=np.asarray(scan.diffraction))
        stitching = contract.stitching
        weight = patch_weight(stitching.weighting, scan.size, scan.probe, stitching.window)
        stitcher = Stitcher(scan.positions, weight, contract.stitching.placement)
        for index, patches in session.batches(scan, groups, arguments.batch):
            stitcher.add(patches.reshape(-1, scan.size, scan.size), scan.positions[index.reshape(-1)])
        stitcher.result()

    forms = {"session.run": run_bare, "pipeline": run_pipeline, "one after the other": run_in_turn}
    processor: dict[str, list[float]] = {name: [] for name in forms}

    def timed(name: str) -> float:
        start, used = time.perf_counter(), time.process_time()
        forms[name]()
        processor[name].append(time.process_time() - used)
        return time.perf_counter() - start

    for form in forms.values():
        form()
    wall = interleaved_times({name: partial(timed, name) for name in forms}, arguments.rounds)

    def ratio(times: Mapping[str, Sequence[float]], name: str) -> float:
        return statistics.median(
            own / bare for own, bare in zip(times[name], times["session.run"], strict=True)
        )

    return {
        "end_to_end_ratio": ratio(wall, "pipeline"),
        "one_after_the_other_ratio": ratio(wall, "one after the other"),
        "processor_time_ratio": ratio(processor, "pipeline"),
        "milliseconds_a_pattern": {
            name: 1e3 * statistics.median(took) / len(inputs) for name, took in wall.items()
        },
    }


def peak_memory(artifact: Path, scan: Path, batch: int) -> int:
    """Peak memory of `ptychonnx reconstruct` in bytes."""
    command = [sys.executable, "-c", CHILD, "reconstruct", str(artifact), str(scan), "--provider", "cpu"]
    command += ["--batch", str(batch), "--out", str(scan.with_suffix(".h5"))]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    match = re.search(r"^peak (\d+)$", found.stdout, re.MULTILINE)
    assert match is not None, found.stdout
    return 1024 * int(match[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--patterns", type=int, default=1600, help="in the scan that is timed")
    parser.add_argument(
        "--long", type=int, nargs=2, default=(1000, 50_000), help="patterns whose memory is compared"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    scan = read_scan(arguments.scan)
    artifacts, memory = {}, {}
    with tempfile.TemporaryDirectory() as name:
        timed = Path(name) / "timed.cxi"
        write_cxi(timed, scan, arguments.patterns, drawn=False)
        for artifact in arguments.artifacts:
            found = artifacts[artifact.stem] = end_to_end(artifact, timed, arguments)
            print(f"{artifact.stem:<24} {found['end_to_end_ratio']:.3f} of bare session.run, "
                  f"{found['one_after_the_other_ratio']:.3f} one after the other, "
                  f"{found['processor_time_ratio']:.3f} in processor time")  # fmt: skip
        timed.unlink()
        for count in arguments.long:
            path = Path(name) / f"{count}.cxi"
            write_cxi(path, scan, count, drawn=True)
            memory[str(count)] = peak_memory(arguments.artifacts[0], path, arguments.batch)
            path.unlink()
    low, high = (memory[str(count)] for count in arguments.long)
    print(f"memory: {high / low:.3f}, {low / 2**20:.0f} MiB and {high / 2**20:.0f} MiB")
    if arguments.out:
        document = {
            "batch": arguments.batch,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "patterns": arguments.patterns,
            "machine": platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in ("onnxruntime-gpu", "numpy", "h5py", "hdf5plugin")},
            "end_to_end_ratio": {name: found["end_to_end_ratio"] for name, found in artifacts.items()},
            "memory_ratio": high / low,
            "peak_bytes": memory,
            "artifacts": artifacts,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
