"""Rate, latency and memory of `ptychonnx live` against `ptychonnx reconstruct`; `ptychonnx replay` is the detector.

rate_ratio
    Sustained patterns per second of `live`, while the detector sends as fast as it is taken, over those of
    `reconstruct` on the same file (its stage of the network). Both run once in each round, alternately; the ratio is
    the median of the ratios within a round. `late_ratio` is the same with positions 700 frames late, `watched_ratio`
    with the page open in Chromium.
latency
    Median and 99th percentile from the arrival of a frame to the growing object, at 80 % of the sustained rate.
memory_ratio
    Peak memory of `live` over that of `reconstruct` on one long scan, each in a process of its own.
bit_for_bit
    Whether the object of the live runs is that of the finished file, by source; all runs count.

The measured processes share the cores that this one may use; `--detector-core` gives the detector and the browser
another one, as they have at a beamline.

    python benchmarks/live.py zoo:pinn_hybrid zoo:any_64 --out benchmarks/results/live.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

import ptychonnx
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor, software_versions

PTYCHONNX = [sys.executable, "-m", "ptychonnx"]
# A rate that no receiver reaches.
UNLIMITED = 1e6
LATE = 700
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MAPPING = [part for key in ("patterns", "x", "y", "probe") for part in ("--map", f"{key}=/{key}")]
MAPPING += ["--positions-unit", "px"]


def write_scan(path: Path, size: int, frames: int) -> None:
    """A scan of an Eiger, compressed counts in HDF5: copies of a simulated one, side by side."""
    base = ptychonnx.simulate_lines(grid=20, n=size, photons=1e7)
    counts = np.rint(np.square(np.asarray(base.diffraction), dtype=np.float64)).astype(np.uint16)
    extent = np.ptp(base.positions, axis=0) + 6
    copies = np.arange(-(-frames // len(base)))
    across = int(np.ceil(np.sqrt(len(copies))))
    shifts = np.stack([copies // across, copies % across], axis=1) * extent
    positions = (shifts[:, None] + base.positions).reshape(-1, 2)[:frames]
    with h5py.File(path, "w") as file:
        stored = file.create_dataset(
            "patterns",
            (frames, size, size),
            np.uint16,
            chunks=(1, size, size),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        for start in range(0, frames, len(base)):
            stored[start : start + len(base)] = counts[: frames - start]
        file["y"], file["x"] = positions.T
        file["probe"] = base.probe
    np.save(path.with_name("probe.npy"), base.probe)


def finished(command: list[str]) -> tuple[str, float]:
    """Output of a command, and its peak memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}\n{text}")
    return text, usage.ru_maxrss / 1024


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def same_object(one: Path, other: Path) -> bool:
    """Whether two files hold the same object, bit for bit."""
    with h5py.File(one) as first, h5py.File(other) as second:
        return first["object"][()].tobytes() == second["object"][()].tobytes()


@dataclass
class Bench:
    """Runs of one artifact and scan."""

    artifact: str
    scan: Path
    batch: int
    folder: Path
    detector_core: int | None
    same: dict[str, list[bool]] = field(default_factory=dict)

    def offline(self) -> dict[str, float]:
        """Patterns per second of the network and memory of `reconstruct`."""
        options = ["--batch", str(self.batch), "--out", str(self.folder / "offline.h5")]
        text, memory = finished(
            [*PTYCHONNX, "reconstruct", self.artifact, str(self.scan), *MAPPING, *options]
        )
        match = re.search(r"([\d.]+) ms per pattern", text)
        assert match is not None, text
        return {"rate": 1000 / float(match[1]), "memory_mb": memory}

    def live(
        self, rate: float, *, protocol: str = "zmq", late: int = 0, watched: bool = False
    ) -> dict[str, float]:
        """Patterns per second, latencies and memory of `live` while `replay` sends."""
        address, positions, page = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", free_port()
        url = f"{protocol}://{address}"
        if protocol == "pva":
            url += f"/ptychonnx:image?first=1&frames={self.patterns}"
        elif protocol == "swmr":
            address = str(self.folder / f"growing-{page}.h5")
            url = f"swmr+file://{address}?frames={self.patterns}"
        detector = self.start(
            [*PTYCHONNX, "--quiet", "replay", str(self.scan), *MAPPING, "--as", protocol, "--rate", str(rate)]
            + ["--positions-late", str(late), "--frames", address, "--positions", positions]
        )
        options = ["--frames", url, "--positions", f"zmq://{positions}", "--positions-unit", "px"]
        options += ["--probe", str(self.folder / "probe.npy"), "--batch", str(self.batch)]
        options += ["--out", str(self.folder / "live.h5"), "--silence", "300"]
        options += ["--view", f"127.0.0.1:{page}"] if watched else []
        with self.browser(page) if watched else nullcontext():
            text, memory = finished([*PTYCHONNX, "live", self.artifact, *options])
        detector.wait()
        match = re.search(r"(\d+) frames, (\d+) per second; .* (\d+) ms \(median\), (\d+) ms", text)
        assert match is not None, text
        count, per_second, median, last = map(int, match.groups())
        self.same.setdefault(protocol, []).append(
            same_object(self.folder / "live.h5", self.folder / "offline.h5")
        )
        return {
            "frames": count,
            "rate": per_second,
            "median_ms": median,
            "p99_ms": last,
            "memory_mb": memory,
            "lost": text.count("never came"),
        }

    @contextmanager
    def browser(self, port: int) -> Iterator[None]:
        """Chromium on the page, from when it is served to the end."""
        if CHROMIUM is None:
            raise SystemExit("no Chromium, which looks at the page")
        over, opened = threading.Event(), []

        def open_page() -> None:
            while not over.wait(0.2):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
                    flags.append(f"--user-data-dir={self.folder / f'profile-{port}'}")
                    opened.append(self.start([CHROMIUM, *flags, f"http://127.0.0.1:{port}/"]))
                    return

        opener = threading.Thread(target=open_page)
        opener.start()
        try:
            yield
        finally:
            over.set()
            opener.join()
            for process in opened:
                process.terminate()
                process.wait()

    def start(self, command: list[str]) -> subprocess.Popen:
        """Start a process on the detector's core, if it has one."""
        if self.detector_core is not None:
            command = ["taskset", "-c", str(self.detector_core), *command]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def patterns(self) -> int:
        """Number of patterns of the scan."""
        with h5py.File(self.scan) as file:
            return len(file["patterns"])


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """Rates and latencies of one artifact; the four kinds of run alternate."""
    kinds = {"live": {}, "late": {"late": LATE}, "watched": {"watched": True}}
    runs: dict[str, list[dict[str, float]]] = {"offline": [], **{name: [] for name in kinds}}
    for _ in range(rounds):
        runs["offline"].append(bench.offline())
        for name, changes in kinds.items():
            runs[name].append(bench.live(UNLIMITED, **changes))
    sustained = statistics.median(run["rate"] for run in runs["live"])
    calm = bench.live(0.8 * sustained)
    for protocol in ("stream2", "pva", "swmr"):
        # PV Access cannot hold a sender back.
        bench.live(0.5 * sustained if protocol == "pva" else UNLIMITED, protocol=protocol)
    network = Session(bench.artifact, "cpu").contract
    return {
        "artifact": Path(bench.artifact).name,
        "general": network.general,
        "n": network.n,
        "batch": bench.batch,
        "patterns": bench.patterns,
        **{
            "rate_ratio" if name == "live" else f"{name}_ratio": statistics.median(
                run["rate"] / base["rate"] for run, base in zip(runs[name], runs["offline"], strict=True)
            )
            for name in kinds
        },
        "patterns_per_second": sustained,
        "latency_at_80_percent": calm,
        "bit_for_bit": {protocol: all(same) for protocol, same in bench.same.items()},
        "lost_frames": sum(run["lost"] for name in kinds for run in runs[name]),
        "runs": runs,
    }


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifacts", nargs="+", help="The first is also that of the long scan.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument(
        "--long", type=int, default=50_000, help="Frames of the scan for the memory; 0: none."
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detector-core", type=int)
    parser.add_argument("--note", default="", help="What else the machine was doing.")
    arguments = parser.parse_args()
    record: dict[str, Any] = {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "note": arguments.note},
        "versions": software_versions(),
        "artifacts": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for artifact in arguments.artifacts:
            scan = folder / "scan.h5"
            write_scan(scan, Session(artifact, "cpu").contract.n, arguments.frames)
            bench = Bench(artifact, scan, arguments.batch, folder, arguments.detector_core)
            record["artifacts"].append(measure(bench, arguments.rounds))
            write_text(arguments.out, json.dumps(record, indent=2) + "\n")
        if arguments.long:
            artifact = arguments.artifacts[0]
            write_scan(folder / "long.h5", Session(artifact, "cpu").contract.n, arguments.long)
            bench = Bench(artifact, folder / "long.h5", arguments.batch, folder, arguments.detector_core)
            offline, live = bench.offline(), bench.live(UNLIMITED)
            record["long_scan"] = {
                "artifact": Path(artifact).name,
                "patterns": arguments.long,
                "memory_ratio": live["memory_mb"] / offline["memory_mb"],
                "bit_for_bit": all(bench.same["zmq"]),
                "offline": offline,
                "live": live,
            }
            write_text(arguments.out, json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
