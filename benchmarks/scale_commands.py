"""Commands of ptychonnx as processes: their time, and the memory of each of their workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import psutil

__all__ = ["Command", "checked", "same_objects"]

_PTYCHONNX = [sys.executable, "-m", "ptychonnx"]


class Command:
    """A command that runs, with the peak memory of each of its processes and links to its part files."""

    def __init__(self, arguments: list[Any], folder: Path, parts: Path | None = None) -> None:
        self._log = (folder / f"{time.monotonic_ns()}.log").open("w+")
        self._start = time.perf_counter()
        self.process = subprocess.Popen(
            [*_PTYCHONNX, *map(str, arguments)], stdout=self._log, stderr=subprocess.STDOUT, cwd=folder
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
