"""Every example runs from beginning to end, and leaves what it says it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = {
    "reconstruct_scan.py": ("object.h5", "object.png"),
    "compare_networks.py": ("comparison.png", "report/report.html"),
    "export_network.py": ("fno.onnx",),
}


def run(program: Path, folder: Path) -> str:
    environment = os.environ | {"MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_script_is_run_here_or_by_another_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*FILES, "fno.py"}
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({path.name})" in page for path in EXAMPLES.glob("*.*") if path.name != "README.md")


@pytest.mark.parametrize("name", FILES)
def test_an_example_runs_and_writes_its_files(name: str, tmp_path: Path) -> None:
    if name == "export_network.py":
        pytest.importorskip("neuralop")
    assert run(EXAMPLES / name, tmp_path)
    assert [file for file in FILES[name] if not (tmp_path / file).is_file()] == []


def test_the_cells_of_the_notebook_run_in_order_and_were_saved_without_outputs(tmp_path: Path) -> None:
    notebook = json.loads((EXAMPLES / "first_look.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    program = tmp_path / "cells.py"
    program.write_text("\n".join("".join(cell["source"]) for cell in cells), encoding="utf-8")
    assert "pinn_hybrid" in run(program, tmp_path).splitlines()[-1]
