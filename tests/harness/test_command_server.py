"""The command that tests run in a fork is told from the installed one by nothing that a shell sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INSTALLED = Path(sys.executable).parent


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("ptychonnx --version", 0),
        ("ptychonnx recnstruct", 2),
        ("COLUMNS=50 ptychonnx metrics --help", 0),
        ("cd folder; echo wrong > scan.npz; ptychonnx check scan.npz", 2),
        ("ptychonnx inspect --schema > /dev/full", 3),
    ],
)
def test_a_command_of_the_server_ends_and_prints_like_the_installed_one(programs, tmp_path, block, code):
    (tmp_path / "folder").mkdir()
    ends = []
    for place in (programs, INSTALLED):
        environment = os.environ | {"PATH": f"{place}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        ends.append((done.returncode, done.stdout, done.stderr))
    assert ends[0] == ends[1]
    assert ends[0][0] == code
