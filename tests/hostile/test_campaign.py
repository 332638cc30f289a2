"""A sample of the campaign of damaged inputs: each is refused in one line, or read rightly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed, extra [serve]")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and limits of address space")
def test_damaged_inputs_are_refused_in_one_line_or_read(tmp_path):
    # In a process without threads, since each input is a fork of it.
    command = [
        sys.executable,
        "-m",
        "tests.hostile.campaign",
        "--count",
        "108",
        "--out",
        tmp_path / "out.json",
    ]
    child = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=550)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["faults"] == []
    assert child.returncode == 0, child.stderr[-1000:]
    assert report["inputs"] == sum(report["outcomes"].values()) == 108
    assert report["outcomes"]["refused"] > 50
    assert report["outcomes"]["same"] > 5
