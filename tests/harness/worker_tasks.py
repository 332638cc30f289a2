"""Tasks of workers that are killed, in a module that the processes of an executor can import."""

from __future__ import annotations

import os
import signal
import time

from ptychonnx.harness.campaign import large_scan, many_scans

run_task, run_part = many_scans.run_task, large_scan.run_part


def mortal_task(task):
    """Reconstruct a scan; the worker of `once` is killed at the first attempt, that of `always` at each."""
    _attempt(task.scan, task.out.with_suffix(".attempts"))
    return run_task(task)


def mortal_part(task):
    """Reconstruct a part; the worker of part 2 is killed as for a whole scan."""
    if task.shard.number == 2:
        _attempt(task.scan, task.scan.with_suffix(".attempts"))
    return run_part(task)


def _attempt(scan, attempts):
    with attempts.open("a") as file:
        file.write(".")
    if scan.stem == "always" or (scan.stem == "once" and attempts.read_text() == "."):
        os.kill(os.getpid(), signal.SIGKILL)


def device_of_one_of_two(folder):
    """The device that a worker sees, and its process id, when a second one has come."""
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()
