"""Our exporter next to others, on modules written for this comparison: `benchmarks/results/exporters.json`.

Every module of `benchmarks.exporter_cases` goes through ours, torch's exporter and tf2onnx (both with and without
onnxslim), and OpenVINO's own converter, each in a process of its own with a time limit; see
`benchmarks.exporter_worker`. A run continues where the last one stopped, and every result is kept at once. Times are
measured last, all files of a module in turn in one process with one thread.

    python -m benchmarks.exporters --stop-after 250
    python -m benchmarks.exporters --again ptychonnx time --only FNO2d
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor

RESULTS = Path("benchmarks/results/exporters.json")
PACKAGES = (
    "ptychonnx", "torch", "onnxscript", "onnxslim", "tensorflow", "keras", "tf2onnx", "openvino", "onnxruntime-gpu",
)  # fmt: skip
EXPORTERS = {
    "torch": ("ptychonnx", "torch", "openvino"),
    "tensorflow": ("ptychonnx", "tf2onnx", "openvino"),
}


class Results:
    """The file of results, written after every record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"modules": {}}

    def module(self, name: str) -> dict[str, Any]:
        """What is known of a module."""
        return self.content["modules"].setdefault(name, {"exporters": {}})

    def add(self, record: dict[str, Any]) -> None:
        """Keep what one exporter did, or times."""
        module = self.module(record.pop("case"))
        if "exporter" in record:
            module["exporters"][record.pop("exporter")] = record
        else:
            module.update(record)
        self.write()

    def write(self) -> None:
        """Write the file."""
        write_text(self._path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")


def supervised(
    job: str,
    framework: str,
    folder: Path,
    chosen: Callable[[str], bool],
    limit: float,
    answer: Callable[[dict[str, Any]], None],
) -> None:
    """Run a worker on the modules of a framework.

    A module that takes longer than `limit` seconds, or crashes the worker, is recorded so and left out.

    Parameters
    ----------
    chosen
        Whether a module of this name is wanted.
    """
    stopped: str | None = "none yet"
    while stopped is not None:
        command = [sys.executable, "-m", "benchmarks.exporter_worker", job, framework, str(folder)]
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            stopped = until_end(worker, job, chosen, limit, answer)
        finally:
            worker.kill()
            worker.wait()


def until_end(
    worker: subprocess.Popen[str],
    job: str,
    chosen: Callable[[str], bool],
    limit: float,
    answer: Callable[[dict[str, Any]], None],
) -> str | None:
    """Ask a worker for every module that it offers; the name of the one that stopped it, or None at the end."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(worker, lines), daemon=True).start()
    assert worker.stdin is not None
    name, patience = None, max(limit, 300)  # loading the framework takes a while
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            line, status = None, "time limit"
        else:
            status = "crash"
        if line is None:
            if name is None:
                raise RuntimeError(f"the worker for {job} does not start")
            answer({"case": name} | ({} if job == "time" else {"exporter": job, "status": status}))
            return name
        record = json.loads(line)
        if "end" in record:
            return None
        if "offer" in record:
            name, patience = record["offer"], limit
            answer({"case": name, "about": record["about"], "framework": record["framework"]})
            worker.stdin.write("yes\n" if chosen(name) else "no\n")
            worker.stdin.flush()
        else:
            answer(record)


def _read(worker: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        lines.put(line)
    lines.put(None)


class OutOfTime(Exception):
    """The time for this run is over; the next one continues."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--files", type=Path, default=Path("build/exporters"), help="folder for exported files"
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of modules")
    parser.add_argument(
        "--again", nargs="*", default=[], help="exporters whose results are measured anew, or `time`"
    )
    parser.add_argument("--jobs", nargs="*", help="exporters, or `time`; all if left out")
    parser.add_argument("--framework", choices=tuple(EXPORTERS), help="modules of one framework alone")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a module in an exporter")
    parser.add_argument(
        "--stop-after", type=float, help="seconds, after which the next module is left to the next run"
    )
    parser.add_argument("--note", default="", help="about the machine")
    arguments = parser.parse_args()
    arguments.files.mkdir(parents=True, exist_ok=True)
    results, start = Results(arguments.out), time.monotonic()
    results.content["machine"] = {"processor": processor(), "cores": os.cpu_count(), "note": arguments.note}
    results.content["versions"] = {package: _version(package) for package in PACKAGES}

    finished: set[tuple[str, str]] = set()

    def keep(record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)
        results.add(record)
        if arguments.stop_after and time.monotonic() - start > arguments.stop_after:
            raise OutOfTime

    def is_missing(job: str, name: str) -> bool:
        if name not in (arguments.only or [name]) or (job, name) in finished:
            return False
        finished.add((job, name))
        module = results.module(name)
        known = "milliseconds" in module if job == "time" else job in module["exporters"]
        return not known or job in arguments.again

    try:
        for framework in [arguments.framework] if arguments.framework else EXPORTERS:
            for job in (*EXPORTERS[framework], "time"):
                if job in (arguments.jobs or [job]):
                    supervised(
                        job, framework, arguments.files, partial(is_missing, job), arguments.limit, keep
                    )
    except OutOfTime:
        print("out of time: run the command again to continue")
    results.write()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
