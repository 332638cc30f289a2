"""Interrupted commands, commands on a full disk and two commands at once leave the old output or the new one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ptychonnx.runtime.formats import write_scan
from tests.hostile.subjects import known_scan

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed, extra [serve]")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and limits of file sizes")
def test_outputs_are_old_or_new_after_a_kill_a_failed_rename_or_a_full_disk():
    command = [sys.executable, "-m", "tests.hostile.crashes"]
    child = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=550)
    assert child.returncode == 0, child.stderr[-1000:]
    report = json.loads(child.stdout)
    assert report["faults"] == []
    assert all(report["interruptions"].values())
    assert {name: codes[0] for name, codes in report["full_disk"].items() if codes[0] != 3} == {}
    assert {name: codes for name, codes in report["occupied"].items() if set(codes) != {2}} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of file sizes")
def test_a_detector_for_the_desk_ends_on_a_full_disk(tmp_path):
    write_scan(tmp_path / "s.npz", known_scan())
    # With -B, since compiled modules would be cut short too.
    command = f"ulimit -f 2; {sys.executable} -B -m ptychonnx replay s.npz --as swmr --frames f.h5 --positions p.csv"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 3, done.stderr
    assert done.stderr.endswith("\nError: f.h5: cannot be written (File too large)\n")
