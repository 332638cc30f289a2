"""A clone as in the guides: the project, trained networks and a scan."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptychonnx.runtime.formats import write_scan
from tests.guides.page import ROOT
from tests.harness.conftest import four_artifacts, lines_scan

__all__ = ["four_artifacts", "lines_scan"]


class Terminal:
    """Runs blocks of commands in a folder, in front or behind."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self._behind: list[subprocess.Popen[bytes]] = []

    def run(self, block: str) -> str:
        """What a block prints; it must end well."""
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=self.folder, env=self.environment, text=True, capture_output=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, block: str, ports: list[int], seconds: float = 90) -> None:
        """Run a block that does not end by itself, and wait until something listens on each port."""
        for port in ports:
            if _listens(port):
                pytest.skip(f"port {port}, which the guide uses, is taken on this machine")
        log = self.folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-euc", block],
                cwd=self.folder, env=self.environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self._behind.append(process)
        end = time.monotonic() + seconds
        while not all(map(_listens, ports)):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.2)

    def stop(self) -> None:
        """End what runs behind."""
        for process in self._behind:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(15)


@pytest.fixture
def terminal(tmp_path: Path, four_artifacts: list[Path], lines_scan) -> Iterator[Terminal]:
    """A terminal in a clone that holds `models/` and `data/test.npz`."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in {".git", "models", "data", "repo", "served", "ovms"}:
            (clone / entry.name).symlink_to(entry)
    (clone / "models").mkdir()
    for artifact in four_artifacts:
        shutil.copyfile(artifact, clone / "models" / artifact.name)
    write_scan(clone / "data" / "test.npz", lines_scan)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    terminal = Terminal(clone, environment)
    try:
        yield terminal
    finally:
        terminal.stop()


@pytest.fixture
def patiently() -> Callable[[Callable[[], str]], str]:
    """Call something again until it raises no AssertionError, for a minute at most."""

    def call(action: Callable[[], str]) -> str:
        end = time.monotonic() + 60
        while True:
            try:
                return action()
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    return call


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
