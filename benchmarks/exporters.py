"""Our exporter next to others, on modules written for this comparison: `benchmarks/results/exporters.json`.

Every module of `benchmarks.exporter_cases` goes through ours, torch's exporter or tf2onnx (both with and without
onnxslim), OpenVINO's own converter, and IREE where it is installed, in a worker process with a time limit for each,
which is started again if it crashes; see `benchmarks.exporter_worker`. A run continues where the last one stopped, and
every result is kept at once. Then all files of the module are timed in turn, with one thread.

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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ptychonnx
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor

RESULTS = Path("benchmarks/results/exporters.json")
PACKAGES = (
    "torch", "onnxscript", "onnxslim", "tensorflow", "keras", "tf2onnx", "openvino", "onnxruntime-gpu",
    "iree-base-compiler",
)  # fmt: skip
# Whether an offer of a worker is taken, and what happens with its records.
Chosen = Callable[[dict[str, Any]], bool]
Answer = Callable[[dict[str, Any]], None]


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


def supervised(framework: str, folder: Path, chosen: Chosen, limit: float, answer: Answer) -> None:
    """Run workers until one has offered all modules of a framework.

    A module that takes longer than `limit` seconds in an exporter, or crashes the worker, is recorded so.
    """
    is_complete = False
    while not is_complete:
        command = [sys.executable, "-m", "benchmarks.exporter_worker", framework, str(folder)]
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            is_complete = until_end(worker, chosen, limit, answer)
        finally:
            worker.kill()
            worker.wait()


def until_end(worker: subprocess.Popen[str], chosen: Chosen, limit: float, answer: Answer) -> bool:
    """Take what a worker offers, if it is chosen; whether it comes to its end without a crash or a time limit."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(worker, lines), daemon=True).start()
    assert worker.stdin is not None
    offer, patience = None, max(limit, 300)  # loading the framework takes a while
    while True:
        try:
            line, status = lines.get(timeout=patience), "crash"
        except queue.Empty:
            line, status = None, "time limit"
        if line is None:
            if offer is None:
                raise RuntimeError("the worker does not start")
            answer({"case": offer["offer"], "exporter": offer["job"], "status": status})
            return False
        record = json.loads(line)
        if "end" in record:
            return True
        if "offer" in record:
            offer, patience = record, limit
            worker.stdin.write("yes\n" if chosen(record) else "no\n")
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
    parser.add_argument("--framework", choices=("torch", "tensorflow"), help="modules of one framework alone")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a module in an exporter")
    parser.add_argument(
        "--stop-after", type=float, help="seconds, after which the next module is left to the next run"
    )
    parser.add_argument("--note", default="", help="about the machine")
    arguments = parser.parse_args()
    arguments.files.mkdir(parents=True, exist_ok=True)
    results, start = Results(arguments.out), time.monotonic()
    results.content["machine"] = {"processor": processor(), "cores": os.cpu_count(), "note": arguments.note}
    versions = {package: _version(package) for package in PACKAGES}
    results.content["versions"] = {"ptychonnx": ptychonnx.__version__} | versions

    finished: set[tuple[str, str]] = set()

    def is_missing(offer: dict[str, Any]) -> bool:
        name, job = offer["offer"], offer["job"]
        module = results.module(name)
        module |= {"about": offer["about"], "framework": offer["framework"]}
        known = "milliseconds" in module if job == "time" else job in module["exporters"]
        is_wanted = name in (arguments.only or [name]) and job in (arguments.jobs or [job])
        if (job, name) in finished or not is_wanted or (known and job not in arguments.again):
            return False
        if arguments.stop_after and time.monotonic() - start > arguments.stop_after:
            raise OutOfTime
        finished.add((job, name))
        return True

    def keep(record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)
        results.add(record)

    try:
        for framework in [arguments.framework] if arguments.framework else ("torch", "tensorflow"):
            supervised(framework, arguments.files, is_missing, arguments.limit, keep)
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
