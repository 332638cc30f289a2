"""A bias in parallel with a convolution is merged into the bias of the convolution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from ptychonnx.export.passes.bias_merging import BiasMergingPass, InvalidBiasPass
from tests.export.graphs import kinds, model_of, run

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2, 4, 5, 6)).astype(np.float32)
WEIGHT = GENERATOR.normal(size=(4, 4, 3, 3)).astype(np.float32)


def block(constant, with_bias=True, swapped=False, twice=False, target=(-1, 4, 5, 6)):
    """A lowered Fourier layer with its bias, beside a convolution, in short."""
    inputs = ["x", "w", "b"] if with_bias else ["x", "w"]
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["pixels"]),
        helper.make_node("Add", ["c", "pixels"] if swapped else ["pixels", "c"], ["shifted"]),
        helper.make_node("Reshape", ["shifted", "square"], ["image"]),
        helper.make_node("Conv", inputs, ["local"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["local", "image"] if swapped else ["image", "local"], ["y"]),
    ]
    if twice:
        nodes.append(helper.make_node("Relu", ["local"], ["z"]))
    constants = [
        ("flat", np.array([-1, 4, 30])),
        ("square", np.array(target)),
        ("c", constant),
        ("w", WEIGHT),
        ("b", GENERATOR.normal(size=4).astype(np.float32)),
    ]
    outputs = [("y", ["batch", *target[1:]])] + ([("z", ["batch", 4, 5, 6])] if twice else [])
    return model_of(nodes, [("x", ["batch", 4, 5, 6])], outputs, constants)


def joined(model):
    graph = ir.from_proto(model)
    ir.passes.common.ShapeInferencePass()(graph)
    result = BiasMergingPass()(graph)
    return ir.to_proto(result.model), result.modified


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("swapped", [True, False])
def test_one_sum_is_left_and_the_output_is_the_same(with_bias, swapped):
    model = block(GENERATOR.normal(size=(4, 1)).astype(np.float32), with_bias, swapped)
    after, modified = joined(model)
    assert modified
    assert kinds(after).count("Add") == 1
    before = run(model, x=X)[0]
    np.testing.assert_allclose(run(after, x=X)[0], before, atol=1e-6 * np.abs(before).max())


def test_other_constants_than_biases_stay():
    assert not joined(block(GENERATOR.normal(size=(4, 30)).astype(np.float32)))[1]
    assert not joined(block(GENERATOR.normal(size=(30,)).astype(np.float32)))[1]


def test_a_convolution_that_is_read_elsewhere_keeps_its_bias():
    assert not joined(block(GENERATOR.normal(size=(4, 1)).astype(np.float32), twice=True))[1]


def test_zeros_that_are_no_bias_are_removed_and_biases_stay():
    # What torch's exporter writes for a Conv3d without bias, and a bias of zeros.
    x = GENERATOR.normal(size=(2, 3, 4, 4, 4)).astype(np.float32)
    weight = GENERATOR.normal(size=(3, 3, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w", "zeros"], ["inner"]),
        helper.make_node("Conv", ["inner", "v", "bias"], ["y"]),
    ]
    constants = [
        ("w", weight),
        ("v", weight[:, :, :1, :1, :1]),
        ("zeros", np.zeros((3, 2), np.float32)),
        ("bias", np.zeros(3, np.float32)),
    ]
    model = model_of(nodes, [("x", ["batch", 3, 4, 4, 4])], [("y", ["batch", 3, 2, 2, 2])], constants)
    graph = ir.from_proto(model)
    assert InvalidBiasPass()(graph).modified
    after = ir.to_proto(graph)
    assert [len(node.input) for node in after.graph.node] == [2, 3]
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3, 3), axis=(2, 3, 4))
    inner = np.einsum("bcxyzijk,ocijk->boxyz", windows, weight)
    expected = np.einsum("bcxyz,oc->boxyz", inner, weight[:, :, 0, 0, 0])
    np.testing.assert_allclose(run(after, x=x)[0], expected, rtol=1e-4, atol=1e-4)
