"""The formulas that exporters write are recognised, and no others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from ptychonnx.export.passes.gelu_fusion import GeluFusionPass
from tests.export.graphs import kinds, model_of, run

X = np.linspace(-6, 6, 64, dtype=np.float32).reshape(2, 32)
CONSTANTS = {"half": 0.5, "one": 1.0, "root": 2**0.5, "inverse": 0.5**0.5, "factor": (2 / np.pi) ** 0.5}
CONSTANTS |= {"cube": 0.044715, "three": 3.0}
CUBIC = [
    ("Pow", ["x", "three"], "a"),
    ("Mul", ["a", "cube"], "b"),
    ("Add", ["b", "x"], "c"),
    ("Mul", ["c", "factor"], "d"),
    ("Tanh", ["d"], "e"),
    ("Add", ["one", "e"], "f"),
]
FORMULAS = {
    "torch": [
        ("Div", ["x", "root"], "a"),
        ("Erf", ["a"], "b"),
        ("Add", ["b", "one"], "c"),
        ("Mul", ["half", "c"], "d"),
        ("Mul", ["x", "d"], "y"),
    ],
    "keras": [
        ("Mul", ["half", "x"], "a"),
        ("Neg", ["x"], "b"),
        ("Mul", ["b", "inverse"], "c"),
        ("Erf", ["c"], "d"),
        ("Sub", ["one", "d"], "e"),
        ("Mul", ["e", "a"], "y"),
    ],
    "torch-tanh": [*CUBIC, ("Mul", ["f", "half"], "g"), ("Mul", ["x", "g"], "y")],
    "keras-tanh": [*CUBIC, ("Mul", ["half", "x"], "g"), ("Mul", ["g", "f"], "y")],
}


def formula(name, opset=20, **changes):
    values = CONSTANTS | changes
    return model_of(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in FORMULAS[name]],
        [("x", ["batch", 32])],
        [("y", ["batch", 32])],
        [(key, np.float32(value)) for key, value in values.items()],
        opset=opset,
    )


def rewritten(model):
    graph = ir.from_proto(model)
    result = GeluFusionPass()(graph)
    return ir.to_proto(result.model), result.modified


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_becomes_the_operator(name):
    model = formula(name)
    after, modified = rewritten(model)
    assert modified
    assert kinds(after) == ["Gelu"]
    np.testing.assert_allclose(run(after, x=X)[0], run(model, x=X)[0], atol=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("changes", [{"half": 0.51}, {"one": 1.01}])
def test_a_formula_with_another_number_stays(name, changes):
    assert not rewritten(formula(name, **changes))[1]


@pytest.mark.parametrize("name", FORMULAS)
def test_an_operator_set_without_the_operator_is_left_alone(name):
    assert not rewritten(formula(name, opset=19))[1]
