"""Rate, latency and memory of `ptychonnx live` against `ptychonnx reconstruct`; `ptychonnx replay` is the detector.

rate_ratio
    Sustained patterns per second of `live`, while the detector sends as fast as it is taken, over those of
    `reconstruct` on the same file (its stage of the network). Both run once in each round, alternately; the ratio is
    the median of the ratios within a round. `watched_ratio` is the same with a client that takes page and pictures.
latency
    Median and 99th percentile from the arrival of a frame to the growing object, at 80 % of the sustained rate.
memory_ratio
    Peak memory of `live` over that of `reconstruct`, each in a process of its own.
bit_for_bit
    Whether the object of every live run is that of the finished file.

All commands run on this machine and share its cores.

    python benchmarks/live.py zoo:pinn_hybrid --scan scan.npz --out benchmarks/results/live.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.machine import processor, software_versions

PTYCHONNX = [sys.executable, "-m", "ptychonnx"]
# A rate that no receiver reaches.
UNLIMITED = 1e6


def finished(command: list[str]) -> tuple[str, float]:
    """Output of a command, and its peak memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}\n{text}")
    return text, usage.ru_maxrss / 1024


def offline(artifact: str, scan: Path, batch: int, out: Path) -> dict[str, float]:
    """Patterns per second of the network and memory of `reconstruct`."""
    options = ["--probe", str(scan), "--batch", str(batch), "--out", str(out)]
    text, memory = finished([*PTYCHONNX, "reconstruct", artifact, str(scan), *options])
    match = re.search(r"([\d.]+) ms per pattern", text)
    assert match is not None, text
    return {"rate": 1000 / float(match[1]), "memory_mb": memory}


def live(
    artifact: str, scan: Path, batch: int, out: Path, rate: float, watched: bool = False
) -> dict[str, float]:
    """Patterns per second, latencies and memory of `live` while `replay` sends."""
    frames, positions, page = (free_port() for _ in range(3))
    options = ["--frames", f"127.0.0.1:{frames}", "--positions", f"127.0.0.1:{positions}"]
    detector = subprocess.Popen(
        [*PTYCHONNX, "--quiet", "replay", str(scan), "--rate", str(rate), *options], stdout=subprocess.DEVNULL
    )
    options = ["--frames", f"zmq://127.0.0.1:{frames}", "--positions", f"zmq://127.0.0.1:{positions}"]
    options += ["--positions-unit", "px", "--probe", str(scan), "--batch", str(batch), "--out", str(out)]
    over = threading.Event()
    if watched:
        options += ["--view", f"127.0.0.1:{page}"]
        threading.Thread(target=watch, args=(f"http://127.0.0.1:{page}/", over), daemon=True).start()
    text, memory = finished([*PTYCHONNX, "live", artifact, *options])
    over.set()
    detector.wait()
    match = re.search(r"(\d+) frames, (\d+) per second; .* (\d+) ms \(median\), (\d+) ms", text)
    assert match is not None, text
    count, per_second, median, last = map(int, match.groups())
    return {
        "frames": count,
        "rate": per_second,
        "median_ms": median,
        "p99_ms": last,
        "memory_mb": memory,
        "lost": text.count("never came"),
    }


def watch(url: str, over: threading.Event) -> None:
    """Take figures and pictures five times per second, as a browser does."""
    while not over.wait(0.2):
        with suppress(OSError):
            for path in ("state", "amplitude.png", "phase.png", "pattern.png"):
                urllib.request.urlopen(url + path, timeout=5).read()


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def same_object(one: Path, other: Path) -> bool:
    """Whether two files hold the same object, bit for bit."""
    with h5py.File(one) as first, h5py.File(other) as second:
        return first["object"][()].tobytes() == second["object"][()].tobytes()


def measure(artifact: str, scan: Path, batch: int, rounds: int, folder: Path) -> dict[str, Any]:
    """All figures of one artifact and scan."""
    results: dict[str, list[dict[str, float]]] = {"offline": [], "live": [], "watched": []}
    same = []
    for _ in range(rounds):
        results["offline"].append(offline(artifact, scan, batch, folder / "offline.h5"))
        for name in ("live", "watched"):
            results[name].append(
                live(artifact, scan, batch, folder / "live.h5", UNLIMITED, name == "watched")
            )
            same.append(same_object(folder / "live.h5", folder / "offline.h5"))
            time.sleep(1)
    sustained = statistics.median(run["rate"] for run in results["live"])
    calm = live(artifact, scan, batch, folder / "live.h5", 0.8 * sustained)
    same.append(same_object(folder / "live.h5", folder / "offline.h5"))
    ratios = {
        name: [
            run["rate"] / base["rate"] for run, base in zip(results[name], results["offline"], strict=True)
        ]
        for name in ("live", "watched")
    }
    return {
        "patterns": len(read_scan(scan)),
        "n": read_scan(scan).size,
        "batch": batch,
        "rate_ratio": statistics.median(ratios["live"]),
        "watched_ratio": statistics.median(ratios["watched"]),
        "memory_ratio": statistics.median(
            run["memory_mb"] / base["memory_mb"]
            for run, base in zip(results["live"], results["offline"], strict=True)
        ),
        "latency_at_80_percent": calm,
        "bit_for_bit": all(same),
        "lost_frames": sum(run["lost"] for name in ("live", "watched") for run in results[name]),
        "runs": results,
    }


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="What else the machine was doing.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments.artifact, arguments.scan, arguments.batch, arguments.rounds, Path(folder))
    record = {
        "artifact": arguments.artifact,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "note": arguments.note},
        "versions": software_versions(),
        **figures,
    }
    write_text(arguments.out, json.dumps(record, indent=2) + "\n")
    print(json.dumps({key: value for key, value in record.items() if key != "runs"}, indent=2))


if __name__ == "__main__":
    main()
