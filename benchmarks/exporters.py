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
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.exporter_cases import cases_of
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
            module |= record
        self.write()

    def write(self) -> None:
        """Write the file."""
        write_text(self._path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")


def supervised(
    job: str, framework: str, folder: Path, names: Sequence[str], limit: float, answer: Callable[[dict], None]
) -> None:
    """Run a worker on modules; one that takes longer than `limit` seconds, or crashes, is recorded and left out."""
    remaining = list(names)
    while remaining:
        command = [
            sys.executable,
            "-m",
            "benchmarks.exporter_worker",
            job,
            framework,
            str(folder),
            *remaining,
        ]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(worker, lines), daemon=True).start()
        # Loading the framework counts for the first module.
        patience, status = limit + 120, None
        try:
            while remaining and status is None:
                try:
                    line = lines.get(timeout=patience)
                except queue.Empty:
                    status = "time limit"
                    continue
                patience = limit
                if line is None:
                    status = "crash"
                    continue
                record = json.loads(line)
                if "done" in record:
                    remaining.remove(record["done"])
                else:
                    answer(record)
        finally:
            worker.kill()
            worker.wait()
        if status is not None:
            print(f"{remaining[0]}: {status} in {job}", flush=True)
            answer(
                {"case": remaining.pop(0)} | ({} if job == "time" else {"exporter": job, "status": status})
            )


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

    def keep(record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)
        results.add(record)
        if arguments.stop_after and time.monotonic() - start > arguments.stop_after:
            raise OutOfTime

    try:
        for framework in [arguments.framework] if arguments.framework else EXPORTERS:
            cases = cases_of(framework)
            chosen = [name for name in cases if name in (arguments.only or cases)]
            for name in cases:
                module = results.module(name)
                results.content["modules"][name] = {
                    "about": cases[name].about,
                    "framework": framework,
                } | module
            for job in (*EXPORTERS[framework], "time"):
                missing = [
                    name
                    for name in chosen
                    if job in arguments.again
                    or (job if job != "time" else "milliseconds")
                    not in (results.module(name) if job == "time" else results.module(name)["exporters"])
                ]
                supervised(job, framework, arguments.files, missing, arguments.limit, keep)
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
