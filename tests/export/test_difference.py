"""The first layer or node that differs is named, independent of layouts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ptychonnx.export.verification.engines import open_onnxruntime, open_reference, open_values
from ptychonnx.export.verification.first_difference import first_different_layer, first_different_node
from ptychonnx.train.run import LayerOutput
from tests.export.graphs import model_of

GENERATOR = np.random.default_rng(0)
WEIGHTS = [GENERATOR.normal(size=(6, 6)).astype(np.float32) for _ in range(3)]
INPUTS = GENERATOR.normal(size=(2, 5, 6)).astype(np.float32)


def chain(weights):
    """relu(x @ a) moved to another layout and back, @ b, @ c."""
    return model_of(
        [
            helper.make_node("MatMul", ["diffraction", "a"], ["first"], name="one"),
            helper.make_node("Relu", ["first"], ["lit"], name="two"),
            helper.make_node("Transpose", ["lit"], ["moved"], name="three", perm=[0, 2, 1]),
            helper.make_node("Transpose", ["moved"], ["back"], name="four", perm=[0, 2, 1]),
            helper.make_node("MatMul", ["back", "b"], ["second"], name="five"),
            helper.make_node("MatMul", ["second", "c"], ["object"], name="six"),
        ],
        [("diffraction", ["batch", 5, 6])],
        [("object", ["batch", 5, 6])],
        list(zip("abc", weights, strict=True)),
    )


def layers(after=False):
    """Outputs in a layout of their own; the first product has no counterpart where a pass folded it."""
    first = np.maximum(INPUTS @ WEIGHTS[0], 0)
    second = first @ WEIGHTS[1]
    outputs = [
        ("folded", first + 1),
        ("relu", first.swapaxes(1, 2)),
        ("b", second),
        ("c", second @ WEIGHTS[2]),
    ]
    reads = [("input",), ("folded",), ("relu",), ("b",)]
    return [
        LayerOutput(name, output, read if after else None)
        for (name, output), read in zip(outputs, reads, strict=True)
    ]


def spoilt(which):
    weights = [weight.copy() for weight in WEIGHTS]
    weights[which][2, 3] += 0.01
    return chain(weights)


def values(model):
    return list(open_values(model.SerializeToString())(INPUTS).values())


@pytest.mark.parametrize("after", [False, True])
def test_equal_networks_differ_nowhere_although_a_layer_was_folded(after):
    assert first_different_layer(layers(after), values(chain(WEIGHTS)), 1e-4) is None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("which", "name"), [(0, "folded"), (1, "b"), (2, "c")])
def test_the_first_layer_with_a_spoilt_weight_is_named(which, name, after):
    assert first_different_layer(layers(after), values(spoilt(which)), 1e-4) == name


def test_a_branch_that_agrees_does_not_hide_one_that_differs():
    branches = [
        LayerOutput("stem", np.arange(6.0), ("input",)),
        LayerOutput("left", np.arange(6.0) ** 2, ("stem",)),
        LayerOutput("right", np.sqrt(np.arange(6.0)), ("stem",)),
    ]
    inside = [np.arange(6.0), np.sqrt(np.arange(6.0))]
    assert first_different_layer(branches, inside, 1e-4) == "left"


def test_the_node_at_which_an_engine_departs_is_named():
    data = chain(WEIGHTS).SerializeToString()
    assert first_different_node(data, open_reference, INPUTS, tolerance=1e-4) is None

    def broken(serialised):
        """An engine that computes with another second weight."""
        model = onnx.load_from_string(serialised)
        for tensor in model.graph.initializer:
            if tensor.name == "b":
                tensor.CopyFrom(numpy_helper.from_array(2 * WEIGHTS[1], "b"))
        return open_onnxruntime(model.SerializeToString())

    assert first_different_node(data, broken, INPUTS, tolerance=1e-4) == "five (MatMul)"
