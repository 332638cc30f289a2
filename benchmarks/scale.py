"""Large scans in parts, nights of scans, and faults of a cluster: `benchmarks/results/scale.json`.

large
    A scan of up to 512 x 512 positions at N = 64, counts in a CXI file that is written band by band, is reconstructed
    in 16 parts on a Dask cluster of this machine and by one process without executor, both at the same time on the
    same cores. `cpu_ratio` of `model` is the processor time of the first command with its workers over that of the
    second. With `--compared`, one process takes the first patterns alone, and its time for the others is extrapolated.
    The parts are then merged once more in reversed order, and one segment is reconstructed alone, both with the canvas
    in memory and in tiles, for their memory.
without_network
    The same with a network that only copies its input: what the parts cost besides the network.
whole
    With `--compared`: one process on the whole scan, alone, for the bits of its object.
night
    100 scans of which 3 are corrupt, and a worker that is killed by its process id in the middle, for both kinds of
    local workers; each object is compared with that of a command of its own scan.
synchronise
    Phase synchronisation of patches in parts, against that of one process.
faults
    What a command says about each fault of a cluster. Workers that see other files run in a mount namespace of their
    own, which takes root; see `benchmarks/scale_faults.py`.
orders
    What a segment covers by the order of the positions; see `benchmarks/scan_orders.py`.
model
    Cost of a night on 64 nodes, computed from the other sections.

    python -m benchmarks.scale large --patterns 65536

Each section replaces its own entry of the file. With `--folder`, an interrupted `large` continues after its last step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil

from benchmarks.scale_commands import Command, checked, same_objects
from benchmarks.scale_faults import faults
from benchmarks.scale_large import identity, large, large_scan, whole, write_large_scan
from benchmarks.scan_orders import scan_orders
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor, software_versions

ROOT = Path(__file__).parents[1]
SCANS, CORRUPT = 100, (17, 50, 83)
NODES, CORES_PER_NODE = 64, 32
Section = dict[str, Any]


def night(artifact: str, folder: Path, engine: str) -> Section:
    """Many small scans; a worker is killed when half of the objects are there."""
    import ptychonnx
    from ptychonnx.harness.campaign.scan_run import Networks
    from ptychonnx.runtime.formats import write_scan
    from ptychonnx.runtime.inference.inference_options import InferenceOptions

    scans = [folder / "night" / f"scan_{number:03}.npz" for number in range(SCANS)]
    if not scans[0].parent.exists():
        scans[0].parent.mkdir()
        whole = ptychonnx.simulate_lines(grid=12)
        rng = np.random.default_rng(1)
        for scan in scans:
            write_scan(scan, whole.subset(np.sort(rng.choice(len(whole), 16, replace=False))))
        for number in CORRUPT:
            scans[number].write_bytes(scans[number].read_bytes()[: 5000 + 1000 * number])
    objects = folder / f"objects_{engine.partition(':')[0]}"
    shutil.rmtree(objects, ignore_errors=True)
    command = Command(["reconstruct", artifact, *scans, "--out", objects, "--executor", engine], folder)
    while command.process.poll() is None and len(list(objects.glob("*.h5"))) < SCANS // 2:
        time.sleep(0.02)
    victim = random.Random(0).choice(command.workers())
    victim.send_signal(signal.SIGKILL)
    outcome = command.finish()
    lines = (objects / "manifest.jsonl").read_text().splitlines()
    records = {record["result"]: record for record in map(json.loads, lines)}
    expected = {scan.stem for number, scan in enumerate(scans) if number not in CORRUPT}
    same = 0
    with Networks(Path(artifact), InferenceOptions(), threads=1) as networks:
        session = networks.for_scan(None)  # type: ignore[arg-type]
        for name in sorted(expected):
            single = ptychonnx.reconstruct(session, folder / "night" / f"{name}.npz")
            with h5py.File(objects / f"{name}.h5") as file:
                same += file["object"][()].tobytes() == single.object.tobytes()
    return checked(outcome, code=1) | {
        "scans": SCANS,
        "corrupt": len(CORRUPT),
        "killed_by_process_id": 1,
        "lines_of_the_manifest": len(lines),
        "objects": len(list(objects.glob("*.h5"))),
        "failed_are_the_corrupt": {name[:-3] for name, record in records.items() if record["error"]}
        == {scan.stem for scan in scans} - expected,
        "equal_to_single_runs": same,
    }


def synchronise(artifact: str, folder: Path, grid: int = 34, shards: int = 2) -> Section:
    """Patches of all parts rotated together, against those of one process."""
    scan = folder / f"scan_{grid}.cxi"
    write_large_scan(scan, grid)
    reconstruct = ["--quiet", "reconstruct", artifact, scan, "--synchronise", "--out"]
    one = checked(Command([*reconstruct, folder / "one_synchronised.h5"], folder).finish())
    checked(Command([*reconstruct[:-2], "--out", folder / "plain.h5"], folder).finish())
    parts = [folder / f"synchronised_{number}.h5" for number in range(1, shards + 1)]
    for number, part in enumerate(parts, 1):
        checked(Command([*reconstruct, part, "--shard", f"{number}/{shards}"], folder).finish())
    merged = folder / "merged_synchronised.h5"
    merge = checked(Command(["--quiet", "merge", *parts[::-1], "--out", merged], folder).finish())
    objects = {}
    for path in (folder / "one_synchronised.h5", merged, folder / "plain.h5"):
        with h5py.File(path) as file:
            objects[path.stem] = file["object"][()]
    whole = objects["one_synchronised"]
    largest = np.abs(whole).max()
    return {
        "patterns": grid**2,
        "parts": shards,
        "one_process": one,
        "merge": merge,
        "part_mb": [round(part.stat().st_size / 1e6, 1) for part in parts],
        "largest_difference": float(np.abs(objects["merged_synchronised"] - whole).max() / largest),
        "largest_difference_without_synchronisation": float(np.abs(objects["plain"] - whole).max() / largest),
        "same_bits": same_objects(folder / "one_synchronised.h5", merged),
    }


def model(results: dict[str, Any]) -> Section:
    """Cost on a cluster, computed from what was measured here; each core of a node is one worker with one thread."""
    scan = results["large"]
    cores = NODES * CORES_PER_NODE
    one, whole = scan["one_process"]["cpu_s"], scan["patterns"]
    per_pattern = one / scan["patterns_of_one_process"]
    # What a command takes besides its patterns; a segment of so large a scan is a 64th of it.
    start_s = scan["one_segment"]["cpu_s"] - whole / 64 * per_pattern
    cpu_ratio = scan["dask"]["cpu_s"] / (whole * per_pattern)
    part_kb = 1e3 * sum(scan["part_mb"]) / scan["patterns"]
    scans, patterns = 1000, 10_000_000
    rounds = -(-scans // cores)
    # One scan of 512 x 512 positions in 64 parts, of which a node takes one.
    large_patterns, segments = 512 * 512, 64
    merge_s = scan["merge"]["cpu_s"] * large_patterns / scan["patterns"]
    return {
        "nodes": NODES,
        "cores_per_node": CORES_PER_NODE,
        "cpu_ms_per_pattern": round(1e3 * per_pattern, 2),
        "cpu_ratio": round(cpu_ratio, 2),
        "start_s": round(start_s, 1),
        "night": {
            "scans": scans,
            "patterns": patterns,
            "cpu_hours": round((patterns * per_pattern * cpu_ratio + min(cores, scans) * start_s) / 3600, 2),
            "wall_s": round(rounds * (patterns / scans * per_pattern + start_s)),
            "wall_s_one_core": round(patterns * per_pattern + start_s),
        },
        "large_scan": {
            "patterns": large_patterns,
            "parts": segments,
            "part_s": round(large_patterns / segments * per_pattern + start_s),
            "merge_s": round(merge_s),
            "wall_s": round(large_patterns / segments * per_pattern + start_s + merge_s),
            "parts_mb": round(part_kb * large_patterns / 1e3),
        },
    }


def sections(
    options: argparse.Namespace, folder: Path
) -> Iterator[tuple[str, Callable[[dict[str, Any]], Any]]]:
    """The measurements by name."""
    network = [options.artifact, "--provider", options.provider]

    def scan() -> Path:
        return large_scan(options.patterns, folder)

    yield (
        "large",
        lambda results: (
            large(network, scan(), folder / "large", options.compared) | {"provider": options.provider}
        ),
    )
    if options.compared:
        yield "whole", lambda results: whole(network, scan(), folder / "large")
    yield (
        "without_network",
        lambda results: large([str(identity(Path(options.artifact), folder))], scan(), folder / "identity"),
    )
    yield (
        "night",
        lambda results: {
            engine.partition(":")[0]: night(options.artifact, folder, engine)
            for engine in ("dask:2", "local:2")
        },
    )
    yield "synchronise", lambda results: synchronise(options.artifact, folder)
    if os.geteuid() == 0:
        yield "faults", lambda results: faults(Path(options.artifact), folder)
    yield "orders", lambda results: scan_orders(folder)
    yield "model", model


def main() -> None:
    """Measure some of the sections, and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", help="all if none is named")
    parser.add_argument("--artifact", default=str(ROOT / "zoo/baseline.onnx"))
    parser.add_argument("--provider", default="cpu", help="of the network of the large scan")
    parser.add_argument("--patterns", type=int, default=262_144, help="a square number")
    parser.add_argument(
        "--compared", type=int, help="first patterns of the scan that one process takes; all if left out"
    )
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one if left out")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/scale.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for name, measure in sections(options, folder):
            if options.sections and name not in options.sections:
                continue
            results = json.loads(options.out.read_text()) if options.out.exists() else {}
            results[name] = measure(results)
            results |= {
                "processor": processor(),
                "cores": psutil.cpu_count(),
                "software": software_versions(),
                "artifact": Path(options.artifact).name,
            }
            print(name, json.dumps(results[name]), flush=True)
            write_text(options.out, json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
