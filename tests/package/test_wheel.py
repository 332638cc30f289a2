"""The wheel that `make package` builds, from the repository and from the sdist, and where it is installed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("train", "export", "runtime", "harness", "zoo")
pytest.importorskip("build")
pytest.importorskip("hatchling")


def build(*options: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", *options, str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)


def contents(wheel: Path) -> dict[str, str]:
    """Hash of every file in a wheel but its list of hashes."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if not name.endswith("/RECORD")
        }


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build("--outdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


def test_the_wheel_from_the_sdist_is_the_wheel_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    build("--wheel", "--outdir", str(tmp_path))
    (direct,) = tmp_path.glob("*.whl")
    assert direct.name == wheel.name
    assert contents(direct) == contents(wheel)


def test_the_wheel_contains_one_package_with_every_file_of_the_rooms(wheel: Path) -> None:
    installed = set(contents(wheel))
    assert {name.split("/")[0].split("-")[0] for name in installed} == {"ptychonnx"}
    rooms = [path for room in ROOMS for path in (ROOT / room).rglob("*")]
    faces = [(ROOT / "src" / "ptychonnx" / "__init__.py"), *(ROOT / "src" / "ptychonnx" / "api").glob("*.py")]
    expected = {f"ptychonnx/{path.relative_to(ROOT)}" for path in rooms if path.is_file()}
    expected |= {str(path.relative_to(ROOT / "src")) for path in faces}
    assert {name for name in expected if "__pycache__" not in name} <= installed
    assert "ptychonnx/py.typed" in installed


def test_the_sdist_contains_what_is_tested_and_documented(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
        assert not [member.name for member in archive.getmembers() if member.issym()]
    for name in (
        "tests/package/test_wheel.py",
        "docs/reference/formats.md",
        "examples/fno.py",
        "integrations/ptychodus/pyproject.toml",
        "LICENSE",
        "Makefile",
    ):
        assert name in names


@pytest.mark.index
def test_the_wheel_alone_evaluates_two_networks_of_the_zoo(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    # Modules are compiled when they are loaded, which only some of those of the dependencies are.
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        scripts / "python",
        "install",
        "--no-compile",
        "--quiet",
    ]
    install += ["-c", ROOT / "constraints.txt", wheel]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(install, check=True, env=clean)
    outside = tmp_path / "outside"
    outside.mkdir()

    def run(*command: object) -> str:
        arguments = [str(part) for part in command]
        return subprocess.run(
            arguments, cwd=outside, env=clean, check=True, capture_output=True, text=True
        ).stdout

    run(scripts / "ptychonnx", "simulate", "lines", "--out", "data", "--train-grid", 2, "--test-grid", 5)
    networks = ("zoo:pinn_fno", "zoo:baseline")
    run(
        scripts / "ptychonnx",
        "evaluate",
        *networks,
        "--scan",
        "data/test.npz",
        "--refine",
        5,
        "--out",
        "report",
    )
    rows = json.loads((outside / "report" / "metrics.json").read_text())["rows"]
    assert rows["pinn_fno"]["phase"]["pearson"] > 0.95
    assert set(rows) == {"pinn_fno", "pinn_fno + mPIE 5", "baseline", "baseline + mPIE 5"}
    assert rows["pinn_fno + mPIE 5"]["phase"]["mae"] < 0.5 * rows["pinn_fno"]["phase"]["mae"]
    where = run(scripts / "python", "-c", "import ptychonnx; print(ptychonnx.zoo.path('pinn_fno'))")
    assert Path(where.strip()).is_relative_to(tmp_path)
    loaded = "import sys, ptychonnx.harness.cli; print({'torch', 'tensorflow', 'keras'} & set(sys.modules))"
    assert run(scripts / "python", "-c", loaded).strip() == "set()"
