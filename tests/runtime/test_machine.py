"""The cores and the memory that this process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptychonnx import zoo
from ptychonnx.runtime.inference.onnxruntime_session import session_threads
from ptychonnx.runtime.machine import available_cores, available_memory


def machine(folder: Path, limit: str, group: str = "0::/kubepods/pod7") -> Path:
    """The files of a control group."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(f"12:memory:/other\n{group}\n")
    own = folder / "sys/fs/cgroup/kubepods/pod7"
    own.mkdir(parents=True)
    (own / "cpu.max").write_text(limit)
    return folder


@pytest.mark.parametrize(
    ("limit", "expected"), [("100000 100000\n", 1), ("10000 100000\n", 1), ("100001 100000\n", 2)]
)
def test_a_control_group_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert available_cores(machine(tmp_path, limit)) == expected


@pytest.mark.parametrize("limit", ["max 100000\n", "", "nonsense\n"])
def test_without_a_limit_the_scheduler_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert available_cores(machine(tmp_path, limit)) == 8
    assert available_cores(tmp_path / "no such folder") == 8


def test_a_control_group_limits_the_memory(tmp_path: Path) -> None:
    whole = available_memory(tmp_path / "no such folder")
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    folder = machine(tmp_path, "max 100000\n")
    for limit, expected in (("1073741824\n", 2**30), ("max\n", whole), (f"{2 * whole}\n", whole)):
        (folder / "sys/fs/cgroup/kubepods/pod7/memory.max").write_text(limit)
        assert available_memory(folder) == expected


def test_a_limit_of_the_process_is_a_limit_of_its_memory(tmp_path: Path) -> None:
    code = "from ptychonnx.runtime.machine import available_memory; print(available_memory())"
    limited = f"ulimit -v {8 * 2**20}; exec {sys.executable} -c '{code}'"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=True)
    assert int(done.stdout) == min(8 * 2**30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def test_onnxruntime_chooses_where_all_cores_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for cores, expected in ((set(range(8)), 0), ({1, 5}, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: cores)
        assert session_threads() == expected


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a machine with one core has nothing to leave out")
def test_a_session_on_one_core_starts_no_threads() -> None:
    """onnxruntime would start one for every core of the machine; they wait for each other on the one that is left."""
    code = """
import os, sys
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
from ptychonnx import Session
before = len(os.listdir("/proc/self/task"))
session = Session(sys.argv[1], "cpu")
print(before, len(os.listdir("/proc/self/task")))
"""
    command = [sys.executable, "-c", code, str(zoo.path("pinn_cnn"))]
    before, after = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert before == after
