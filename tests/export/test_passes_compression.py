"""Constants that repeat themselves are stored once, and keep their values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from ptychonnx.export.passes.constant_compression import ConstantCompressionPass, compress_constants
from tests.export.graphs import kinds, model_of, run

RNG = np.random.default_rng(0)
SIDE = 96
NOISE = RNG.normal(size=(SIDE, SIDE)).astype(np.float32)
# Zeros of both signs, which are different bits.
FEW = np.where(NOISE > 0, np.float32(-0.0), np.round(NOISE)).astype(np.float32)


def real_form(weight):
    """Blocks ((a, b), (-b, a)) [..., 2 I, 2 O] of a complex array [..., I, O]."""
    rows = np.stack([weight.real, weight.imag], axis=-1)
    others = np.stack([-weight.imag, weight.real], axis=-1)
    both = np.stack([rows, others], axis=-3)
    *axes, height, _, width, _ = both.shape
    return both.reshape(*axes, 2 * height, 2 * width).astype(np.float32)


FOURIER = real_form(np.exp(2j * np.pi * (np.outer(np.arange(64), np.arange(64)) % 64) / 64).round(6))
MIXING = real_form(RNG.normal(size=(3, 24, 32)) + 1j * RNG.normal(size=(3, 24, 32)))


def model_with(**constants):
    """Each constant is an output, after a node that changes no bit."""
    nodes = [helper.make_node("Abs", ["x"], ["y"])]
    nodes += [helper.make_node("Identity", [name], [f"{name}_out"]) for name in constants]
    outputs = [("y", ["batch", 2]), *((f"{name}_out", array.shape) for name, array in constants.items())]
    return model_of(nodes, [("x", ["batch", 2])], outputs, list(constants.items()))


def compressed(array):
    """The graph with a constant, whose values were compared."""
    before = model_with(a=array)
    after = compress_constants(before)
    (_, found) = run(after, x=np.ones((1, 2), np.float32))
    assert np.array_equal(array, found)
    return after


def numbers(model):
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


@pytest.mark.parametrize(
    ("array", "operators", "share"),
    [
        (MIXING, ["Gather", "Mul", "Concat", "Reshape"], 1 / 2),
        (FEW, ["Cast", "Gather"], 1 / 4),
        (FOURIER, ["Cast", "Gather", "Gather", "Mul", "Concat", "Reshape"], 1 / 8),
    ],
)
def test_a_constant_that_repeats_itself_is_stored_once(array, operators, share):
    after = compressed(array)
    assert kinds(after)[: len(operators)] == operators
    assert share * array.nbytes <= numbers(after) < share * array.nbytes + 1200
    assert compress_constants(model_with(a=array)) == after


def test_zeros_keep_their_sign_where_values_are_few():
    (_, found) = run(compress_constants(model_with(a=FEW)), x=np.ones((1, 2), np.float32))
    assert np.array_equal(FEW.view(np.uint32), found.view(np.uint32))


@pytest.mark.parametrize(
    "array",
    [
        NOISE,
        NOISE[0],
        MIXING[:, :32, :32],  # few numbers
        np.where(np.arange(MIXING.size).reshape(MIXING.shape) == 65, -MIXING, MIXING),
        MIXING.swapaxes(1, 2)[:, 1:].copy(),
    ],
)
def test_other_constants_stay(array):
    before = ir.from_proto(model_with(a=np.ascontiguousarray(array)))
    assert not ConstantCompressionPass()(before).modified


def test_inputs_with_defaults_stay():
    model = model_with(a=FEW)
    model.graph.input.append(helper.make_tensor_value_info("a", 1, FEW.shape))
    after = compress_constants(model)
    assert [tensor.name for tensor in after.graph.initializer] == ["a"]
    (_, found) = run(after, x=np.ones((1, 2), np.float32), a=2 * FEW)
    assert np.array_equal(found, 2 * FEW)
