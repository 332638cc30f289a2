"""The examples in the docstrings of the public names run, and say what happens."""

from __future__ import annotations

import doctest
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ptychonnx
from ptychonnx.harness.cli.app import main

FUNCTIONS_AND_CLASSES = [name for name in ptychonnx.__all__ if name not in {"__version__", "zoo"}]
NEEDS = {"export_run": "lightning", "export_module": "torch"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder where the examples run, with the files that they name."""
    folder = tmp_path_factory.mktemp("examples")
    ptychonnx.write_scan(folder / "scan.npz", ptychonnx.simulate_lines(5))
    write_foreign_network(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def write_foreign_network(folder: Path) -> None:
    """A network of one layer that turns patterns into phases."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["patterns", "kernel"], ["phase"], pads=[1, 1, 1, 1])],
        "theirs",
        [helper.make_tensor_value_info("patterns", TensorProto.FLOAT, ["batch", 1, 64, 64])],
        [helper.make_tensor_value_info("phase", TensorProto.FLOAT, ["batch", 1, 64, 64])],
        [numpy_helper.from_array(np.full((1, 1, 3, 3), 1e-3, np.float32), "kernel")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        folder / "theirs.onnx",
    )
    (folder / "theirs.yaml").write_text(
        "label: theirs\nn: 64\nflux: 1.0e6\noutput: {channels: [phase]}\n", encoding="utf-8"
    )


def train_small_network() -> None:
    sizes = ["--n", "32", "--step", "4", "--train-grid", "6", "--test-grid", "3"]
    small = [
        "--epochs",
        "4",
        "--batch",
        "4",
        "--learning-rate",
        "1e-3",
        "--width",
        "4",
        "--blocks",
        "1",
        "--modes",
        "8",
        "--first-steps",
        "2",
        "--final-steps",
        "1",
    ]
    for command in (
        ["simulate", "lines", "--out", "data", *sizes],
        [
            "train",
            "fno",
            "--data",
            "data",
            "--out",
            "runs/pinn_fno",
            "--epochs",
            "1",
            "--overlap",
            "1",
            *small,
        ],
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["ptychonnx", *command])
            main()


def examples_of(item: object, name: str) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=False)
    return finder.find(item, name, module=False, globs={})


@pytest.mark.parametrize("name", FUNCTIONS_AND_CLASSES)
def test_the_example_of_a_public_name_runs(name: str, folder: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "numpy"))
    if name == "export_run":
        train_small_network()
    run(ptychonnx.__dict__.get(name) or getattr(ptychonnx, name), f"ptychonnx.{name}")


@pytest.mark.parametrize("name", ["names", "path"])
def test_the_example_of_the_zoo_runs(name: str, folder: Path) -> None:
    run(getattr(ptychonnx.zoo, name), f"ptychonnx.zoo.{name}")


def test_the_example_of_the_package_runs(folder: Path) -> None:
    run(ptychonnx, "ptychonnx")


def run(item: object, name: str) -> None:
    (test,) = examples_of(item, name)
    assert test.examples, f"{name} has no example"
    assert inspect.getdoc(item)
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert results.failed == 0, "".join(report)
