"""Scales, offsets and batch normalisation are folded into the weights before them, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from ptychonnx.export.passes.affine_folding import AffineFoldingPass
from tests.export.graphs import kinds, model_of, run

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2, 3, 5, 5)).astype(np.float32)


def array(*shape):
    return GENERATOR.normal(size=shape).astype(np.float32)


NORMALISATION = {"g": array(4), "h": array(4), "m": array(4), "v": np.abs(array(4)) + 0.1}
LAYERS = {
    "Conv": (["x", "w", "b"], {"w": array(4, 3, 3, 3), "b": array(4)}, {}),
    "Conv without bias": (["x", "w"], {"w": array(4, 3, 3, 3)}, {}),
    "ConvTranspose": (["x", "w", "b"], {"w": array(3, 4, 3, 3), "b": array(4)}, {}),
}
AFFINE = {
    "BatchNormalization": (["z", "g", "h", "m", "v"], NORMALISATION, {"epsilon": 1e-3}),
    "Mul": (["z", "s"], {"s": array(4, 1, 1)}, {}),
    "Mul by one value": (["s", "z"], {"s": np.float32(1.7)}, {}),
    "Add": (["s", "z"], {"s": array(1, 4, 1, 1)}, {}),
}


def folded(model):
    graph = ir.from_proto(model)
    result = AffineFoldingPass()(graph)
    return ir.to_proto(result.model), result.modified


def chain(layer, affine, output=("batch", 4, None, None)):
    inputs, weights, attributes = layer
    others, parameters, settings = affine[1]
    return model_of(
        [
            helper.make_node(attributes.pop("kind", None) or "Conv", inputs, ["z"]),
            helper.make_node(affine[0], others, ["y"], **settings),
        ],
        [("x", ["batch", 3, 5, 5])],
        [("y", list(output))],
        [*weights.items(), *parameters.items()],
    )


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("affine", AFFINE)
def test_scales_and_offsets_of_channels_are_folded_into_the_weights(layer, affine):
    inputs, weights, _ = LAYERS[layer]
    kind = layer.split()[0]
    model = chain((inputs, weights, {"kind": kind}), (affine.split()[0], AFFINE[affine]))
    after, modified = folded(model)
    assert modified
    assert kinds(after) == [kind]
    before = run(model, x=X)[0]
    np.testing.assert_allclose(run(after, x=X)[0], before, atol=1e-6 * np.abs(before).max())


@pytest.mark.parametrize(("kind", "shape"), [("MatMul", (5,)), ("MatMul", ()), ("Gemm", (5,))])
def test_a_scale_goes_into_a_matrix(kind, shape):
    model = model_of(
        [helper.make_node(kind, ["x", "w"], ["z"]), helper.make_node("Mul", ["z", "s"], ["y"])],
        [("x", ["batch", 3])],
        [("y", ["batch", 5])],
        [("w", array(3, 5)), ("s", array(*shape))],
    )
    x = array(4, 3)
    after, _ = folded(model)
    assert kinds(after) == [kind]
    np.testing.assert_allclose(run(after, x=x)[0], run(model, x=x)[0], atol=1e-6)


def test_factors_that_vary_along_a_row_stay():
    model = chain((*LAYERS["Conv"][:2], {}), ("Mul", (["z", "s"], {"s": array(3)}, {})))
    after, modified = folded(model)
    assert (kinds(after), modified) == (["Conv", "Mul"], False)


def test_values_and_weights_that_another_node_reads_stay():
    weights = [("w", array(4, 3, 3, 3)), ("s", array(4, 1, 1))]
    read_twice = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["z"]),
            helper.make_node("Mul", ["z", "s"], ["t"]),
            helper.make_node("Add", ["t", "z"], ["y"]),
        ],
        [("x", ["batch", 3, 5, 5])],
        [("y", ["batch", 4, 3, 3])],
        weights,
    )
    assert not folded(read_twice)[1]
    shared = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["z"]),
            helper.make_node("Mul", ["z", "s"], ["t"]),
            helper.make_node("Conv", ["x", "w"], ["u"]),
            helper.make_node("Sub", ["t", "u"], ["y"]),
        ],
        [("x", ["batch", 3, 5, 5])],
        [("y", ["batch", 4, 3, 3])],
        weights,
    )
    assert not folded(shared)[1]
