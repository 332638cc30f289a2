"""Large scans in parts, nights of scans, and faults of a cluster: `benchmarks/results/scale.json`.

large
    A scan of up to 512 x 512 positions at N = 64, counts in a CXI file that is written band by band, is reconstructed
    by one process without executor and in 16 parts on a Dask cluster of this machine, both at the same time on the same
    cores. `cpu_ratio` is the processor time of the second command with its workers over that of the first. The parts
    are then merged once more in reversed order, and one segment is reconstructed alone, both with the canvas in memory
    and in tiles, for their memory.
night
    100 scans of which 3 are corrupt, and a worker that is killed by its process id in the middle, for both kinds of
    local workers; each object is compared with that of a command of its own scan.
synchronise
    Phase synchronisation of patches in parts, against that of one process.
faults
    What a command says about each fault of a cluster. Workers that see other files run in a mount namespace of their
    own, which takes root; see `benchmarks/scale_faults.py`.
model
    Cost of a night on 64 nodes, computed from the other sections.

    python -m benchmarks.scale large --patterns 65536

Each section replaces its own entry of the file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil

from benchmarks.scale_faults import faults
from ptychonnx.harness.simulate.objects import lines_object
from ptychonnx.harness.simulate.probes import PIXEL_SIZE, WAVELENGTH, make_probe
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor, software_versions
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

ROOT = Path(__file__).parents[1]
PTYCHONNX = [sys.executable, "-m", "ptychonnx"]
SIZE, STEP, JITTER, PHOTONS = 64, 6, 1, 1e9
DETECTOR_PIXEL = 75e-6
# The object of a large scan repeats with this period, in pixels.
PERIOD = 1024
SHARDS = 16
SCANS, CORRUPT = 100, (17, 50, 83)
NODES, CORES_PER_NODE = 64, 32
Section = dict[str, Any]


def write_large_scan(path: Path, grid: int, seed: int = 0) -> None:
    """Simulate grid x grid positions and write their counts row by row of the raster; two rows are in memory."""
    rng = np.random.default_rng(seed)
    tile = lines_object((PERIOD, PERIOD), rng)
    side = SIZE + (grid - 1) * STEP + 2 * JITTER
    repeats = -(-side // PERIOD)
    image = np.tile(tile, (repeats, repeats))[:side, :side]
    probe = make_probe("zone-plate", SIZE) * np.float32(np.sqrt(PHOTONS))
    axis = SIZE // 2 + JITTER + STEP * np.arange(grid)
    raster = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    positions = (raster + rng.integers(-JITTER, JITTER + 1, raster.shape)).astype(np.float64)
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
        for start in range(0, len(positions), grid):
            row = slice(start, start + grid)
            counts[row] = rng.poisson(forward(cut_windows(image, positions[row], SIZE), probe) ** 2)


class Command:
    """A command that runs, with the peak memory of each of its processes and links to its part files."""

    def __init__(self, arguments: list[Any], folder: Path, parts: Path | None = None) -> None:
        self._log = (folder / f"{time.monotonic_ns()}.log").open("w+")
        self._start = time.perf_counter()
        self.process = subprocess.Popen(
            [*PTYCHONNX, *map(str, arguments)], stdout=self._log, stderr=subprocess.STDOUT, cwd=folder
        )
        self._folder, self._parts = folder, parts
        self.workers_mb: dict[int, float] = {}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def finish(self) -> dict[str, Any]:
        """Wait for the end: code, text, wall and processor seconds (of all processes), and memory in MB."""
        _, status, usage = os.wait4(self.process.pid, 0)
        wall = time.perf_counter() - self._start
        self._over.set()
        self._watcher.join()
        self._log.seek(0)
        # One column per worker, whatever their ids.
        return {
            "code": os.waitstatus_to_exitcode(status),
            "text": self._log.read(),
            "wall_s": round(wall, 1),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
            "memory_mb": round(usage.ru_maxrss / 1024) if not self.workers_mb else None,
            "worker_memory_mb": sorted(map(round, self.workers_mb.values())),
        }

    def workers(self) -> list[psutil.Process]:
        """The processes that reconstruct."""
        children: list[psutil.Process] = []
        # psutil would read all processes of the machine.
        with suppress(OSError, psutil.NoSuchProcess):
            for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
                children += map(psutil.Process, map(int, (thread / "children").read_text().split()))
        return [child for child in children if "spawn_main" in " ".join(_command_line(child))]

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            for worker in self.workers():
                with suppress(OSError, TypeError):
                    text = Path(f"/proc/{worker.pid}/status").read_text()
                    peak = re.search(r"VmHWM:\s+(\d+) kB", text)
                    if peak is not None:
                        self.workers_mb[worker.pid] = int(peak[1]) / 1024
            if self._parts is not None:
                for part in self._folder.glob(".parts-*/*.h5"):
                    with suppress(OSError):
                        os.link(part, self._parts / part.name)


def _command_line(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def checked(result: dict[str, Any], code: int = 0) -> dict[str, Any]:
    """The figures of a command that ended as expected."""
    if result["code"] != code:
        raise SystemExit(f"exit code {result['code']}\n{result['text']}")
    return {
        key: value for key, value in result.items() if value not in (None, []) and key not in ("code", "text")
    }


def same_objects(one: Path, other: Path) -> bool:
    """Whether two files hold the same object and weights, bit for bit."""
    with h5py.File(one) as first, h5py.File(other) as second:
        return all(first[name][()].tobytes() == second[name][()].tobytes() for name in ("object", "weight"))


def large(artifact: str, patterns: int, folder: Path) -> Section:
    """One process against 16 parts on Dask, both at the same time."""
    grid = math.isqrt(patterns)
    scan = folder / f"scan_{grid}.cxi"
    if not scan.exists():
        start = time.perf_counter()
        write_large_scan(scan.with_suffix(".partial"), grid)
        scan.with_suffix(".partial").rename(scan)
        print(f"simulated in {time.perf_counter() - start:.0f} s", flush=True)
    parts = folder / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    reconstruct = ["--quiet", "reconstruct", artifact, scan, "--out"]
    executor = ["--executor", "dask:2", "--shards", SHARDS]
    commands = {
        "one_process": Command([*reconstruct, folder / "one.h5"], folder),
        "dask": Command([*reconstruct, folder / "dask.h5", *executor], folder, parts),
    }
    section: Section = {"patterns": grid**2, "n": SIZE, "shards": SHARDS, "workers": 2}
    section["scan_mb"] = round(scan.stat().st_size / 1e6)
    outcomes: dict[str, dict[str, Any]] = {}
    waiting = [
        threading.Thread(target=lambda name=name, command=command: outcomes.update({name: command.finish()}))
        for name, command in commands.items()
    ]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    section |= {name: checked(outcomes[name]) for name in commands}
    section["cpu_ratio"] = round(section["dask"]["cpu_s"] / section["one_process"]["cpu_s"], 3)
    section["cpu_ms_per_pattern"] = round(1e3 * section["one_process"]["cpu_s"] / grid**2, 3)
    files = sorted(parts.glob("*.h5"), key=lambda path: int(path.stem))
    assert len(files) == SHARDS, files
    section["part_mb"] = [round(path.stat().st_size / 1e6, 1) for path in files]
    with h5py.File(folder / "one.h5") as file:
        section["object"] = list(file["object"].shape)
    for name, options in (("merge", []), ("merge_in_tiles", ["--canvas-memory", "0.02"])):
        merged = folder / f"{name}.h5"
        arguments = ["--quiet", "merge", *files[::-1], "--out", merged, *options]
        section[name] = checked(Command(arguments, folder).finish())
        section[name]["same_bits"] = same_objects(folder / "one.h5", merged)
    segment = f"1/{min(64, grid**2 // 1024)}"
    for name, options in (("one_segment", []), ("one_segment_in_tiles", ["--canvas-memory", "0.002"])):
        arguments = [*reconstruct, folder / f"{name}.h5", "--shard", segment, *options]
        section[name] = checked(Command(arguments, folder).finish())
    section["same_bits"] = same_objects(folder / "one.h5", folder / "dask.h5")
    return section


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


def synchronise(artifact: str, folder: Path, grid: int = 48, shards: int = 3) -> Section:
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
    per_pattern = scan["cpu_ms_per_pattern"] / 1e3
    # What a command of one segment takes beyond its patterns.
    segment_patterns = scan["patterns"] / min(64, scan["patterns"] // 1024)
    start_s = round(scan["one_segment"]["cpu_s"] - segment_patterns * per_pattern, 1)
    part_kb = 1e3 * sum(scan["part_mb"]) / scan["patterns"]
    scans, patterns = 1000, 10_000_000
    rounds = -(-scans // cores)
    # One scan of 512 x 512 positions in 64 parts, of which a node takes one.
    large_patterns, segments = 512 * 512, 64
    merge_s = scan["merge"]["cpu_s"] * large_patterns / scan["patterns"]
    return {
        "nodes": NODES,
        "cores_per_node": CORES_PER_NODE,
        "cpu_ms_per_pattern": scan["cpu_ms_per_pattern"],
        "start_s": start_s,
        "night": {
            "scans": scans,
            "patterns": patterns,
            "cpu_hours": round(
                (patterns * per_pattern * scan["cpu_ratio"] + min(cores, scans) * start_s) / 3600, 2
            ),
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
    yield "large", lambda results: large(options.artifact, options.patterns, folder)
    yield (
        "night",
        lambda results: {
            engine.partition(":")[0]: night(options.artifact, folder, engine)
            for engine in ("dask:2", "local:2")
        },
    )
    yield "synchronise", lambda results: synchronise(str(ROOT / "zoo/pinn_cnn.onnx"), folder)
    if os.geteuid() == 0:
        yield "faults", lambda results: faults(Path(options.artifact), folder)
    yield "model", model


def main() -> None:
    """Measure some of the sections, and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", help="all if none is named")
    parser.add_argument("--artifact", default=str(ROOT / "zoo/baseline.onnx"))
    parser.add_argument("--patterns", type=int, default=262_144, help="a square number")
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
