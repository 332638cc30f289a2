"""Tasks of workers that are killed, in a module that the processes of an executor can import."""

from __future__ import annotations

import os
import signal

from ptychonnx.harness.campaign import many_scans

run_task = many_scans.run_task


def mortal_task(task):
    """Reconstruct a scan; the worker of `once` is killed at the first attempt, that of `always` at each."""
    attempts = task.out.with_suffix(".attempts")
    with attempts.open("a") as file:
        file.write(".")
    if task.scan.stem == "always" or (task.scan.stem == "once" and attempts.read_text() == "."):
        os.kill(os.getpid(), signal.SIGKILL)
    return run_task(task)
