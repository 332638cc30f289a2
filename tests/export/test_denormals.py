"""Denormal numbers are counted, and no network of the zoo has a significant number of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.verification.denormals import constant_denormals, count_denormals
from ptychonnx.harness.simulate.probes import make_probe
from ptychonnx.train.initial_retrieval import retrieval_constants

ZOO = Path(__file__).parents[2] / "zoo"


def test_denormal_and_negligible_values_are_counted_by_their_bits():
    values = np.array([1, -1e-11, 1e-13, -1e-39, 0, -0.0], dtype=np.float32)
    count = count_denormals([values, np.array([1e-300]), np.zeros(0, np.float32)])
    assert (count.values, count.denormal, count.negligible) == (6, 1, 2)
    assert count.share == pytest.approx(1 / 6)


def test_intermediate_values_are_counted():
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n" + (
        "import json, numpy as np\n"
        "from tests.export.test_denormals import squares\n"
        "from ptychonnx.export.verification.denormals import intermediate_denormals\n"
        "count = intermediate_denormals(squares(), np.array([1e-20, 1, 2], np.float32))\n"
        "print(json.dumps([count.values, count.denormal]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [6, 1]


def squares() -> onnx.ModelProto:
    """A graph that squares its input, and adds a constant."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "z")]
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"]), helper.make_node("Add", ["y", "c"], ["z"])]
    constants = [numpy_helper.from_array(np.array([1, 1, 1e-40], np.float32), "c")]
    graph = helper.make_graph(nodes, "squares", value[:1], value[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_constants_are_counted():
    count = constant_denormals(squares())
    assert (count.values, count.denormal, count.negligible) == (3, 1, 1)


@pytest.mark.parametrize("path", sorted(ZOO.glob("*.onnx")), ids=lambda path: path.stem)
def test_no_network_of_the_zoo_holds_negligible_constants(path):
    count = constant_denormals(onnx.load(path))
    assert count.values > 1000
    assert (count.denormal, count.negligible) == (0, 0)


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_constants_of_phase_retrieval_are_cut(size, members):
    constants = vars(
        retrieval_constants(make_probe("zone-plate", size), 0.1, steps=1, final_steps=1, members=members)
    )
    count = count_denormals(value for value in constants.values() if isinstance(value, np.ndarray))
    assert (count.denormal, count.negligible) == (0, 0)


def test_probes_with_faint_tails_are_cut_too():
    row, column = np.mgrid[:64, :64] - 32
    probe = np.exp(-(row**2 + column**2) / 16).astype(np.complex64)[None]
    assert count_denormals([np.abs(probe).astype(np.float32)]).negligible
    constants = vars(retrieval_constants(probe, 0.1, steps=1, final_steps=1))
    count = count_denormals(value for value in constants.values() if isinstance(value, np.ndarray))
    assert (count.denormal, count.negligible) == (0, 0)
