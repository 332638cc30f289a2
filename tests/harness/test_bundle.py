"""The bundle for machines without internet: its parts, and what its script says of a broken one."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ptychonnx.harness.gpu import bundle
from ptychonnx.harness.gpu.bundle import divide_files, make_bundle
from ptychonnx.runtime.errors import EnvironmentFailure, InputError


def write_wheel(folder: Path) -> Path:
    """A wheel named ptychonnx whose command prints its arguments, larger than a part."""
    path = folder / "ptychonnx-0.0.1-py3-none-any.whl"
    code = "import sys\n\n\ndef main():\n    print('ran', *sys.argv[1:])\n"
    info = "ptychonnx-0.0.1.dist-info"
    files = {
        "toy.py": code,
        "ballast.txt": "0" * 5000,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: ptychonnx\nVersion: 0.0.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nptychonnx = toy:main\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "_PART_BYTES", 2000)
    make_bundle(write_wheel(tmp_path), tmp_path / "bundle")
    return tmp_path / "bundle"


def install(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": "", "PIP_NO_INDEX": "1"}
    return subprocess.run(
        ["./install.sh", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_divided_wheel_is_joined_and_installed(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert {"install.sh", "SHA256SUMS", "JOINED", "data/test.npz"} <= names
    parts = sorted((folder / "wheels").iterdir())
    assert len(parts) > 2
    assert max(part.stat().st_size for part in parts) == 2000
    answer = install(folder, "--provider", "cpu")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == ["ran info", "ran gpu-check --out check --provider cpu"]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_broken_part_is_named_in_one_line(folder, damage):
    part = sorted((folder / "wheels").iterdir())[1]
    if damage == "missing":
        part.unlink()
    else:
        content = bytearray(part.read_bytes())
        content[100] ^= 1
        part.write_bytes(content)
    answer = install(folder)
    assert answer.returncode == 1
    assert answer.stderr == f"install.sh: wheels/{part.name} is missing or damaged: copy it again\n"
    assert answer.stdout == ""
    assert not (folder / "venv").exists()


def test_files_are_divided_only_if_they_are_larger(tmp_path):
    (tmp_path / "small").write_bytes(b"0" * 10)
    (tmp_path / "large").write_bytes(bytes(range(25)))
    assert list(divide_files(tmp_path, 10)) == ["large"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"large.part-00{n}" for n in range(3)),
        "small",
    ]
    assert b"".join((tmp_path / f"large.part-00{n}").read_bytes() for n in range(3)) == bytes(range(25))


def test_what_cannot_be_bundled_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file, expected the wheel"):
        make_bundle(tmp_path / "none.whl", tmp_path / "out")
    wheel = write_wheel(tmp_path)
    with pytest.raises(InputError, match="is not empty"):
        make_bundle(wheel, tmp_path)
    broken = tmp_path / "ptychonnx-0.0.2-py3-none-any.whl"
    broken.write_bytes(b"no archive")
    with pytest.raises(EnvironmentFailure, match="pip cannot download the wheels"):
        make_bundle(broken, tmp_path / "other")
