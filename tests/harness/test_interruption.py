"""Ctrl-C in the middle of a command: one line, exit code 130, no leftovers, no process that goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec

import pytest

from ptychonnx.runtime.formats import write_scan

# The terminal interrupts the whole group, as soon as the command reports so many steps.
PROGRAM = """
import os, signal, sys
from ptychonnx.harness.cli import app, console

steps = int(sys.argv.pop(1))

def update(self, done, total=None):
    if done >= steps:
        os.killpg(0, signal.SIGINT)

console._Lines.update = update
# Background jobs of a shell inherit that it is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
app.main()
"""
SMALL = {"epochs": 50, "width": 4, "blocks": 1, "batch": 4, "overlap": 1, "first-steps": 2, "final-steps": 1}
TRAIN = ["--data", "scan.npz", "--out", "out", *(f"--{name}={value}" for name, value in SMALL.items())]
# In the third epoch of 15 steps, so that a complete one is kept.
COMMANDS = {
    "train fno": ("lightning", 40, ["train", "fno", "--modes", "4", *TRAIN]),
    "train cnn": ("tensorflow", 40, ["train", "cnn", *TRAIN]),
    "evaluate": ("skimage", 1, ["evaluate", "a.onnx", "b.onnx", "--scan", "scan.npz", "--out", "out"]),
    "bench": ("onnxruntime", 1, ["bench", "a.onnx", "b.onnx", "--rounds", "50", "--json", "out"]),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs groups of processes")
@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupted_command_ends_in_one_line_and_leaves_nothing(
    name, lines_scan, four_artifacts, tmp_path
):
    package, steps, arguments = COMMANDS[name]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    write_scan(tmp_path / "scan.npz", lines_scan)
    for link, artifact in zip("ab", four_artifacts, strict=False):
        (tmp_path / f"{link}.onnx").symlink_to(artifact)
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-c", PROGRAM, str(steps), *arguments]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # Ends when every process that holds the pipes has ended.
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "Interrupted; nothing half-written was left behind."
    assert "Traceback" not in err + out
    left = {path.name for path in set(tmp_path.iterdir()) - before}
    assert left == ({"out.unfinished"} if name.startswith("train") else set())
    if left:
        assert "out.unfinished keeps the complete epochs; --resume continues from them" in err
    # Helpers of the processes, which hold no pipe, end a moment later.
    end = time.monotonic() + 60
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        pytest.fail("a process goes on")
