"""Every dependency is pinned, in the version that is installed, and listed with its licence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
# Built for one kind of processor or CUDA; torch pins them itself.
_OF_HARDWARE = ("nvidia-", "cuda-", "triton")


def pins() -> dict[str, Version]:
    lines = (
        line.partition("#")[0].partition(";")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name.strip()): Version(version.strip()) for name, version in pairs}


def needed() -> set[str]:
    """All packages that the project with its extras needs, directly or not, if they are installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    waiting = [*map(Requirement, project["dependencies"])]
    waiting += [Requirement(text) for texts in extras.values() for text in texts]
    names: set[str] = set()
    done: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == "ptychonnx":
            continue
        for extra in ("", *requirement.extras):
            if (name, extra) in done:
                continue
            done.add((name, extra))
            try:
                further = distribution(name).requires or []
            except PackageNotFoundError:
                continue
            names.add(name)
            of_extra = map(Requirement, further)
            waiting += [
                one for one in of_extra if one.marker is None or one.marker.evaluate({"extra": extra})
            ]
    return {name for name in names if not name.startswith(_OF_HARDWARE)}


def test_every_dependency_is_pinned_in_the_installed_version():
    pinned, used = pins(), needed()
    assert len(used) > 100
    assert sorted(used - pinned.keys()) == []
    others = {name: distribution(name).version for name in used if name in pinned}
    # A build for one processor, such as 2.13.0+cpu, is the same version.
    assert {n: v for n, v in others.items() if Version(v).public != pinned[n].public} == {}


def test_the_page_of_licences_lists_every_pinned_package():
    lines = (ROOT / "docs" / "reference" / "licences.md").read_text().splitlines()
    listed = {line.split("|")[1].strip() for line in lines if line.startswith("| ")}
    assert sorted(pins().keys() - listed) == []


def test_commands_run_without_a_network_and_look_for_none(tmp_path):
    unshare, strace = shutil.which("unshare"), shutil.which("strace")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    command = [unshare, "-rn", sys.executable, "-m", "ptychonnx.harness.cli"]
    trace = tmp_path / "connections"
    traced = [strace, "-f", "-qq", "-e", "trace=connect,sendto", "-o", trace]
    if strace is not None and not subprocess.run([*traced, "true"], capture_output=True).returncode:
        command = [*traced, *command]
    scan = tmp_path / "data" / "test.npz"
    for arguments in (
        ("simulate", "lines", "--train-grid", "3", "--test-grid", "3", "--out", tmp_path / "data"),
        ("info",),
        ("inspect", "zoo:baseline"),
        ("check", scan),
        ("reconstruct", "zoo:baseline", scan, "--out", tmp_path / "o.h5"),
        ("evaluate", "zoo:baseline", "--scan", scan, "--out", tmp_path / "report"),
        ("deploy", "triton", ROOT / "zoo" / "baseline.onnx", "--repository", tmp_path / "repo"),
    ):
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        # In CI, onnxruntime itself sends nothing.
        for name in ("CI", "ORT_DISABLE_TELEMETRY"):
            environment.pop(name, None)
        child = subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, timeout=200, env=environment
        )
        assert child.returncode == 0, child.stderr[-500:]
        assert not trace.exists() or "AF_INET" not in trace.read_text()
    # Where onnxruntime would keep a number of the device, and what it has not sent yet.
    assert not [path for path in (tmp_path / "cache").rglob("*") if "onnxruntime" in path.name]


def test_onnxruntime_reports_nothing_unless_the_user_wants_it():
    program = "import ptychonnx, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for before, after in ({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0"):
        environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
        child = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=environment | before,
            check=True,
        )
        assert child.stdout == f"{after}\n"


def test_openvino_is_imported_without_its_telemetry():
    pytest.importorskip("openvino")
    program = (
        "import sys; from ptychonnx.runtime.inference.openvino_import import import_openvino; "
        "import_openvino().Core(); print(sys.modules['openvino_telemetry'])"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert child.stdout == "None\n", child.stderr
    direct = [
        path.relative_to(ROOT).as_posix()
        for room in ("train", "export", "runtime", "harness")
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"^\s*(import openvino|from openvino)\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert direct == ["runtime/inference/openvino_import.py"]
