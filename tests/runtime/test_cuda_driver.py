"""Drivers and CUDA libraries that a machine has, written in C: what the commands say of them, in one line.

The libraries are real files that the dynamic loader finds; only their functions do nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from ptychonnx.runtime.inference.cuda_libraries import cuda_state
from ptychonnx.runtime.inference.providers import available

COMPILER = shutil.which("cc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler"),
    pytest.mark.skipif("cuda" in available(), reason="this machine has a CUDA device"),
    pytest.mark.skipif(not cuda_state().needed, reason="onnxruntime was built without CUDA"),
]

DRIVER = """
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = DEVICES; return 0; }
"""
LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9")


def build(path: Path, source: str = "int nothing;", **values: int) -> None:
    options = [f"-D{name}={value}" for name, value in values.items()]
    command = [str(COMPILER), "-shared", "-fPIC", f"-Wl,-soname,{path.name}", *options]
    subprocess.run([*command, "-x", "c", "-", "-o", str(path)], input=source, text=True, check=True)


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder), "COLUMNS": "1000", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def refusal(folder: Path) -> str:
    """What a command says when it is asked for CUDA."""
    answer = python(folder, "-m", "ptychonnx.harness.cli", "gpu-check", "zoo:baseline", "--provider", "cuda")
    assert answer.returncode == 3
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    return line


def test_a_driver_that_is_too_old_is_told_with_both_versions(tmp_path):
    build(tmp_path / "libcuda.so.1", DRIVER, VERSION=12020, DEVICES=1)
    line = refusal(tmp_path)
    assert f"runs CUDA up to 12.2, onnxruntime {onnxruntime.__version__} is built for CUDA 13" in line
    assert "which needs driver 580.65.06 or newer" in line


def test_a_driver_without_a_visible_device_is_told(tmp_path):
    build(tmp_path / "libcuda.so.1", DRIVER, VERSION=13000, DEVICES=0)
    assert "shows no device to this process" in refusal(tmp_path)


def test_libraries_of_the_system_are_found_and_the_missing_one_is_named(tmp_path):
    build(tmp_path / "libcuda.so.1", DRIVER, VERSION=13000, DEVICES=1)
    for name in LIBRARIES[:-1]:
        build(tmp_path / name)
    code = (
        "import json; from ptychonnx.runtime.inference.cuda_libraries import cuda_state; "
        "state = cuda_state(); print(json.dumps([dict(state.libraries), state.problem]))"
    )
    answer = python(tmp_path, "-c", code)
    assert answer.returncode == 0, answer.stderr
    libraries, problem = json.loads(answer.stdout.splitlines()[-1])
    if libraries["libcudnn.so.9"] is not None:
        pytest.skip("this machine has cuDNN")
    for name in LIBRARIES[:-1]:
        assert Path(libraries[name]).name.startswith(name)
    assert problem == "libcudnn.so.9 cannot be loaded: pip install 'ptychonnx[cuda]'"
