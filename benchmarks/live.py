"""Rate, latency and memory of `ptychonnx live` against `ptychonnx reconstruct`; `ptychonnx replay` is the detector.

rate_ratio
    Processor time of the network per pattern in `reconstruct` over that of everything in `live`, from the first frame
    to the last patch in the growing object, while the detector sends as fast as it is taken: what `live` reaches of
    the offline rate on the same core. Processor time, since it hardly depends on what else the machine does; rates on
    the clock are in the runs. Both run once in each round, alternately; the ratio is the median of the ratios within a
    round. `late_ratio` is the same with positions 700 frames late, `watched_ratio` with the page open in Chromium.
calm
    The same at 80 % of the sustained rate, with the page open and a position sent with every frame: median and 99th
    percentile from the arrival of a frame to the growing object, and of the age of what is drawn in the browser. A
    frame is on the screen after at most the sum of both and the time between two copies.
memory_ratio
    Peak memory of `live` over that of `reconstruct` on one long scan, each in a process of its own, with a network that
    only recognises patterns: neither its weights nor its time hide what each frame leaves behind. It is read from the
    file of the scan as from one that grows, and 20 MB of frames may wait (`--buffer 0.02`).
bit_for_bit
    Whether the object of the live runs is that of the finished file, by source; all runs count.

The detector and the browser have the first core to themselves, since at a beamline they are other machines;
`reconstruct` and `live` share the others. What `live` takes to receive, decompress, convert, place and show counts
against it.

    python -m benchmarks.live zoo:pinn_hybrid zoo:any_64 zoo:any_128 --out benchmarks/results/live.json
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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.live_scan import MAPPING, simulated, write_scan
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor, software_versions
from ptychonnx.runtime.scan import Scan
from tests.harness.chromium import CHROMIUM, chromium
from tests.harness.conftest import make_contract, write_oracle

PTYCHONNX = [sys.executable, "-m", "ptychonnx"]
# The command, and at its end the processor time of the network and of a live series until it is stitched.
MEASURED = [
    sys.executable,
    "-c",
    """
import json, time
from ptychonnx.harness.cli import main
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.live.live_reconstruction import LiveReconstruction

def predict(self, *inputs, _predict=Session.predict, **beam):
    start = time.process_time()
    patches = _predict(self, *inputs, **beam)
    calls.append((len(inputs[0]), time.process_time() - start))
    return patches

def add(self, events, _add=LiveReconstruction.add):
    began.append(time.process_time())
    _add(self, events)

def finish(self, *args, _finish=LiveReconstruction.finish, **options):
    streamed.append(time.process_time() - began[0])
    return _finish(self, *args, **options)

calls, began, streamed = [], [], []
Session.predict, LiveReconstruction.add, LiveReconstruction.finish = predict, add, finish
try:
    main()
finally:
    # The first batch loads and allocates; the last may be smaller.
    whole = [seconds / count for count, seconds in calls[1:] if count == calls[0][0]]
    if whole:
        network = 1e3 * sum(whole) / len(whole)
        print("measured", json.dumps({"network_ms": network, "streamed_s": (streamed or [None])[0]}))
""",
]
# A rate that no receiver reaches.
UNLIMITED = 1e6
LATE = 700
# In the page before anything else is.
AGES = (
    "window.ages = []; new MutationObserver(() => ages.push(Number(document.body.dataset.age)))"
    ".observe(document, {subtree: true, attributeFilter: ['data-age']})"
)


def finished(command: list[str]) -> tuple[str, float]:
    """Output of a command, and its peak memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}\n{text}")
    return text, usage.ru_maxrss / 1024


def measured(text: str) -> dict[str, float]:
    """What `MEASURED` printed."""
    return json.loads(text.rpartition("measured ")[2].partition("\n")[0])


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def same_object(one: Path, other: Path) -> bool:
    """Whether two files hold the same object, bit for bit."""
    with h5py.File(one) as first, h5py.File(other) as second:
        return first["object"][()].tobytes() == second["object"][()].tobytes()


def drawn(ages: list[float]) -> list[float]:
    """How often a browser drew, and the median and the 99th percentile of the ages in milliseconds."""
    if not ages:
        return []
    return [len(ages), *(1000 * float(np.quantile(ages, share)) for share in (0.5, 0.99))]


@dataclass
class Bench:
    """Runs of one artifact and scan."""

    artifact: str
    scan: Path
    batch: int
    folder: Path
    detector_core: int
    keep: Path | None = None
    same: dict[str, list[bool]] = field(default_factory=dict)

    def kept(self, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a run measured, now or before this process was stopped."""
        known = {}
        if self.keep is not None and self.keep.is_file():
            known = json.loads(self.keep.read_text(encoding="utf-8"))
        key = f"{Path(self.artifact).name}, {self.patterns} patterns: {name}"
        if key not in known:
            if not name.startswith("offline") and not (self.folder / "offline.h5").is_file():
                self.offline()
            known[key] = run()
            print(key, json.dumps(known[key]), file=sys.stderr, flush=True)
            if self.keep is not None:
                write_text(self.keep, json.dumps(known, indent=2) + "\n")
        if "same" in known[key]:
            self.same.setdefault(known[key]["protocol"], []).append(known[key]["same"])
        return known[key]

    def offline(self) -> dict[str, float]:
        """Patterns per second of the network and memory of `reconstruct`."""
        options = ["--batch", str(self.batch), "--probe", str(self.folder / "probe.npy")]
        options += ["--out", str(self.folder / "offline.h5")]
        text, memory = finished([*MEASURED, "reconstruct", self.artifact, str(self.scan), *MAPPING, *options])
        match = re.search(r"([\d.]+) ms per pattern", text)
        assert match is not None, text
        return {"rate": 1000 / float(match[1]), "memory_mb": memory, "cpu_ms": measured(text)["network_ms"]}

    def live(
        self,
        rate: float,
        *,
        protocol: str = "zmq",
        late: int = 0,
        together: int = 20,
        watched: bool = False,
        buffer: float = 0.5,
    ) -> dict[str, Any]:
        """Rate, latencies and memory of `live` while `replay` sends, or ("file") from the file itself."""
        address, positions, page = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", free_port()
        url = f"{protocol}://{address}"
        if protocol == "pva":
            url += f"/ptychonnx:image?first=1&frames={self.patterns}"
        elif protocol == "swmr":
            address = str(self.folder / f"growing-{page}.h5")
            url = f"swmr+file://{address}?frames={self.patterns}"
        replay: AbstractContextManager[subprocess.Popen | None] = (
            nullcontext()
            if protocol == "file"
            else self.running(
                [
                    *PTYCHONNX,
                    "--quiet",
                    "replay",
                    str(self.scan),
                    *MAPPING,
                    "--as",
                    protocol,
                    "--rate",
                    str(rate),
                ]
                + ["--positions-late", str(late), "--positions-batch", str(together)]
                + ["--frames", address, "--positions", positions]
            )
        )
        positions = f"zmq://{positions}"
        if protocol == "file":
            url = f"swmr+file://{self.scan}?data=/patterns&frames={self.patterns}"
            positions = f"swmr+file://{self.scan}?x=/x&y=/y&frames={self.patterns}"
        options = ["--frames", url, "--positions", positions, "--positions-unit", "px"]
        options += ["--probe", str(self.folder / "probe.npy"), "--batch", str(self.batch)]
        options += ["--out", str(self.folder / "live.h5"), "--silence", "300", "--buffer", str(buffer)]
        options += ["--view", f"127.0.0.1:{page}"] if watched else []
        ages: list[float] = []
        with replay as detector, self.browser(page, ages) if watched else nullcontext():
            text, memory = finished([*MEASURED, "live", self.artifact, *options])
            if detector is not None:
                detector.wait(60)
        match = re.search(r"(\d+) frames, ([\d.]+) per second; .* (\d+) ms \(median\), (\d+) ms", text)
        assert match is not None, text
        count, per_second, median, last = map(float, match.groups())
        return {
            "protocol": protocol,
            "same": same_object(self.folder / "live.h5", self.folder / "offline.h5"),
            "frames": int(count),
            "rate": per_second,
            "median_ms": median,
            "p99_ms": last,
            "memory_mb": memory,
            "cpu_ms": 1000 * measured(text)["streamed_s"] / count,
            "network_cpu_ms": measured(text)["network_ms"],
            "lost": text.count("never came"),
            **dict(zip(("drawn", "drawn_median_ms", "drawn_p99_ms"), drawn(ages), strict=False)),
        }

    @contextmanager
    def browser(self, port: int, ages: list[float]) -> Iterator[None]:
        """Chromium, open before the block begins, on the page from when it is served; ages of what it drew, in s."""
        if CHROMIUM is None:
            raise SystemExit("no Chromium, which looks at the page")
        ready, over = threading.Event(), threading.Event()

        def look() -> None:
            # Of this thread, and of the browser that it starts.
            os.sched_setaffinity(0, {self.detector_core})
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
                chromium(Path(profile)) as page,
            ):
                page.call("Page.enable")
                page.call("Page.addScriptToEvaluateOnNewDocument", source=AGES)
                ready.set()
                while not over.wait(0.05):
                    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                        break
                page.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
                over.wait()
                ages.extend(page.evaluate("ages"))

        viewer = threading.Thread(target=look)
        viewer.start()
        try:
            # On a busy machine a browser may take longer to start than a short scan.
            ready.wait(60)
            yield
        finally:
            over.set()
            viewer.join()

    @contextmanager
    def running(self, command: list[str]) -> Iterator[subprocess.Popen]:
        """A process on the detector's core."""
        command = ["taskset", "-c", str(self.detector_core), *command]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def patterns(self) -> int:
        """Number of patterns of the scan."""
        with h5py.File(self.scan) as file:
            return len(file["patterns"])


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """Rates and latencies of one artifact; the four kinds of run alternate."""
    kinds = {"live": {}, "late": {"late": LATE}, "watched": {"watched": True}}
    runs: dict[str, list[dict[str, float]]] = {"offline": [], **{name: [] for name in kinds}}
    for index in range(rounds):
        runs["offline"].append(bench.kept(f"offline {index}", bench.offline))
        for name, changes in kinds.items():
            runs[name].append(bench.kept(f"{name} {index}", partial(bench.live, UNLIMITED, **changes)))
    sustained = statistics.median(run["rate"] for run in runs["live"])
    calm = bench.kept("calm", partial(bench.live, 0.8 * sustained, together=1, watched=True))
    for protocol in ("stream2", "pva", "swmr"):
        # PV Access cannot hold a sender back.
        rate = 0.5 * sustained if protocol == "pva" else UNLIMITED
        bench.kept(protocol, partial(bench.live, rate, protocol=protocol))
    network = Session(bench.artifact, "cpu").contract
    return {
        "artifact": Path(Session(bench.artifact, "cpu").path).name,
        "general": network.general,
        "n": network.n,
        "batch": bench.batch,
        "patterns": bench.patterns,
        **{
            "rate_ratio" if name == "live" else f"{name}_ratio": statistics.median(
                base["cpu_ms"] / run["cpu_ms"] for run, base in zip(runs[name], runs["offline"], strict=True)
            )
            for name in kinds
        },
        "patterns_per_second": sustained,
        "calm": calm,
        "bit_for_bit": {protocol: all(same) for protocol, same in bench.same.items()},
        "lost_frames": sum(run["lost"] for name in kinds for run in runs[name]),
        "runs": runs,
    }


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifacts", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=2000, help="At N = 64; fewer of larger patterns.")
    parser.add_argument(
        "--long", type=int, default=50_000, help="Frames of the scan for the memory; 0: none."
    )
    parser.add_argument("--batch", type=int, default=16, help="At N = 64; less of larger patterns.")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--note", default="", help="What else the machine was doing.")
    parser.add_argument("--keep", type=Path, help="File with the runs so far: one that was stopped goes on.")
    arguments = parser.parse_args()
    # With one core, all share it.
    detector_core, *live_cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, live_cores or [detector_core])
    cores = {"live": live_cores or [detector_core], "detector": detector_core}
    record: dict[str, Any] = {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "used": cores, "note": arguments.note},
        "versions": software_versions(),
        "artifacts": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def bench(artifact: str, base: Scan, frames: int) -> Bench:
            scan = folder / "scan.h5"
            write_scan(scan, base, frames)
            (folder / "offline.h5").unlink(missing_ok=True)
            # Most of the work are products of matrices: a batch takes about as long for patterns of any size.
            batch = max(1, arguments.batch * 64**3 // base.size**3)
            return Bench(artifact, scan, batch, folder, detector_core, arguments.keep)

        for artifact in arguments.artifacts:
            network = Session(artifact, "cpu").contract
            frames = round(arguments.frames * (64 / network.n) ** 2)
            # As bright as a network with a fixed scale knows it.
            base = simulated(network.n, 1e7 if network.general else network.probe.flux)
            record["artifacts"].append(measure(bench(artifact, base, frames), arguments.rounds))
            write_text(arguments.out, json.dumps(record, indent=2) + "\n")
        if arguments.long:
            base = simulated(64, 1e5)
            oracle = write_oracle(folder / "oracle.onnx", base, make_contract("pinn_fno", base))
            long = bench(str(oracle), base, arguments.long)
            offline = long.kept("offline", long.offline)
            live = long.kept("live", partial(long.live, UNLIMITED, protocol="file", buffer=0.02))
            record["long_scan"] = {
                "patterns": arguments.long,
                "memory_ratio": live["memory_mb"] / offline["memory_mb"],
                "bit_for_bit": all(long.same["file"]),
                "offline": offline,
                "live": live,
            }
            write_text(arguments.out, json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
