"""What lower precision costs and gains: quality, size, and time on the CPU, interleaved in one process.

Each float32 artifact is reduced to fp16 and int8 as `ptychonnx export --precision` does it: calibrated on patterns of
one scan, judged on another (or the same). Then all forms run once in each round, in an order that changes from round
to round, so that a machine that gets slower for a while slows all of them. Times are medians over the rounds, ratios
medians of the ratios within one round.

onnxruntime has no half-precision kernels on the CPU: the time of fp16 says nothing about a GPU.

    python benchmarks/precision.py models/*.onnx --scan data/test.npz --out benchmarks/results/precision.json
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ptychonnx.export.precision import reduce_artifact
from ptychonnx.harness.evaluation.precision_gate import Gate
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.inference.session import Session
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours

# Thread pools spin for a while after their work, at the cost of whoever comes next.
REST = 0.03


def reduced(parent: Path, folder: Path, calibration: Scan, gate: Gate) -> dict[str, dict[str, Any]]:
    """What became of each precision, and where its file is."""
    found: dict[str, dict[str, Any]] = {}
    for precision in ("fp16", "int8"):
        out = folder / f"{parent.stem}.{precision}.onnx"
        start = time.perf_counter()
        try:
            result = reduce_artifact(parent, out, precision, calibration, gate)
        except VerificationError as error:
            found[precision] = {"refused": str(error)}
            continue
        assert result.contract.quality is not None
        found[precision] = {
            "seconds_to_make": time.perf_counter() - start,
            "bytes": result.bytes_after,
            "layers": len(result.layers),
            "float_layers": [result.layers[name] for name in result.contract.conversion.float_layers],
            "quality": result.contract.quality.model_dump(mode="json"),
        }
    return found


def measure(parent: Path, scan: Scan, calibration: Scan, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = reduced(parent, folder, calibration, Gate(scan))
        files = {"fp32": parent} | {path.suffixes[-2][1:]: path for path in sorted(folder.iterdir())}
        sessions = {form: Session(path, "cpu", arguments.threads) for form, path in files.items()}
    contract = sessions["fp32"].contract
    groups = group_neighbours(scan.positions, contract.gridsize)
    inputs = scan.diffraction[groups.take(range(arguments.batch), axis=0, mode="wrap")]
    if contract.input.domain == "counts":
        inputs = np.rint(np.square(inputs, dtype=np.float64)).astype(np.uint16)
    for session in sessions.values():
        session.predict(inputs)
    times: dict[str, list[float]] = {form: [] for form in sessions}
    shuffled = random.Random(0)
    for _ in range(arguments.rounds):
        order = list(sessions)
        shuffled.shuffle(order)
        for form in order:
            time.sleep(REST)
            sessions[form].predict(inputs)  # wakes the threads of this session
            start = time.perf_counter()
            sessions[form].predict(inputs)
            times[form].append(1e3 * (time.perf_counter() - start) / arguments.batch)
    return {
        "bytes": parent.stat().st_size,
        "reduced": found,
        "milliseconds_a_group": {form: statistics.median(values) for form, values in times.items()},
        "speedup_over_fp32": {
            form: statistics.median(base / own for base, own in zip(times["fp32"], values, strict=True))
            for form, values in times.items()
        },
    }


def vector_instructions() -> list[str]:
    """What of the processor 8-bit kernels depend on, where the system tells."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return []
    return sorted(
        {flag for flag in flags if flag in {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"}}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="+", type=Path, help="float32 artifacts")
    parser.add_argument("--scan", type=Path, required=True, help="to judge on")
    parser.add_argument("--calibration", type=Path, help="scan to calibrate on; that of --scan if not given")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    scan = read_scan(arguments.scan)
    calibration = scan if arguments.calibration is None else read_scan(arguments.calibration)
    results = {}
    for artifact in arguments.artifacts:
        found = results[artifact.stem] = measure(artifact, scan, calibration, arguments)
        print(f"{artifact.stem}: {found['bytes'] / 1e6:.2f} MB")
        for form, took in found["milliseconds_a_group"].items():
            made = found["reduced"].get(form)
            note = ""
            if made is not None:
                lowered = made["layers"] - len(made["float_layers"])
                note = f"  {made['bytes'] / 1e6:.2f} MB, {lowered} of {made['layers']} layers"
            print(f"  {form:<6}{took:8.2f} ms  {found['speedup_over_fp32'][form]:.2f}x{note}")
        for form, made in found["reduced"].items():
            if "refused" in made:
                print(f"  {form:<6}{made['refused']}")
    if arguments.out:
        document = {
            "batch": arguments.batch,
            "rounds": arguments.rounds,
            "threads": arguments.threads,
            "judged_on": scan.name,
            "calibrated_on": calibration.name,
            "machine": platform.processor() or platform.machine(),
            "vector_instructions": vector_instructions(),
            "versions": {name: version(name) for name in ("onnxruntime-gpu", "onnx", "numpy")},
            "networks": results,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
