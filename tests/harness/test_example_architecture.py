"""The example of an architecture in a package of its own: installed, it goes through the same commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "architecture"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the installed example, metadata included."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("example")
    source = shutil.copytree(EXAMPLE, folder / "source")  # a build leaves files beside what it builds
    target = folder / "installed"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    return target


def test_an_installed_architecture_trains_exports_and_is_judged(installed, run, tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    code, text, _ = run("train", "--list")
    assert code == 0
    assert "pinn_residual" not in text

    monkeypatch.syspath_prepend(installed)
    code, text, _ = run("train", "--list")
    assert code == 0
    assert "pinn_residual" in text
    data, model = tmp_path / "data", tmp_path / "models" / "pinn_residual.onnx"
    grids = ["--n", 32, "--train-grid", 8, "--test-grid", 5]
    for command in (
        ["simulate", "lines", "--out", data, *grids],
        [
            "train",
            "residual",
            "--data",
            data,
            "--out",
            tmp_path / "run",
            "--epochs",
            1,
            "--width",
            4,
            "--first-steps",
            3,
            "--final-steps",
            2,
        ],
        ["export", tmp_path / "run", "--out", model],
        ["inspect", model],
        ["evaluate", model, "--scan", data / "test.npz", "--out", tmp_path / "report"],
    ):
        code, text, err = run(*command)
        assert code == 0, err
    row = json.loads((tmp_path / "report" / "metrics.json").read_text())["rows"]["pinn_residual"]
    assert row["parity"]["max_relative_error"] < 1e-5
    assert row["amplitude"]["pearson"] > 0.3
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    # The default of the package, beside the value that was typed.
    assert (record["network"]["blocks"], record["network"]["width"]) == (4, 4)
