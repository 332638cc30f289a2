"""Half precision in reduced layers, float32 everywhere else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ptychonnx.export.graph.inspection import check_graph
from ptychonnx.export.precision.fp16 import half_precision
from ptychonnx.export.precision.reducible_layers import describe_layer, inferred_types, with_named_nodes
from ptychonnx.export.verification.engines import open_onnxruntime, open_reference
from ptychonnx.runtime.errors import InputError
from tests.export.graphs import model_of
from tests.export.small_network import LAYERS, scan_of_noise, small_network, weights_of

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(scope="module")
def model():
    return with_named_nodes(small_network())


@pytest.fixture(scope="module")
def inputs():
    return scan_of_noise().diffraction[:4, None]


def outputs_by_node(model):
    types = inferred_types(model)
    return {node.name: types[node.output[0]] for node in model.graph.node}


def test_layers_and_operators_between_them_are_half_and_the_input_side_is_not(model):
    made = half_precision(model).build(LAYERS)
    check_graph(made.SerializeToString())
    types = outputs_by_node(made)
    assert {types[name] for name in ("scale", "shift", "log")} == {FLOAT}
    assert {types[name] for name in (*LAYERS, "relu_1", "pool", "enlarge", "merge", "vacuum")} == {HALF}
    assert {value.type.tensor_type.elem_type for value in (*made.graph.input, *made.graph.output)} == {FLOAT}
    # One at the first layer, one at the output.
    assert Counter(node.op_type for node in made.graph.node)["Cast"] == 2
    assert weights_of(made, "first.weight_half").dtype == np.float16
    assert not any(entry.name == "first.weight" for entry in made.graph.initializer)


def test_a_constant_of_both_sides_stays_exact_on_the_float_side(model):
    made = half_precision(model).build(LAYERS)
    assert weights_of(made, "one").dtype == np.float32
    assert weights_of(made, "one_half").dtype == np.float16


def test_readers_of_an_unreduced_layer_stay_in_float(model):
    made = half_precision(model).build(["first", "third"])
    types = outputs_by_node(made)
    assert types["first"] == types["relu_1"] == HALF
    assert {types[name] for name in ("second", "relu_2", "pool", "enlarge", "merge")} == {FLOAT}
    check_graph(made.SerializeToString())


def test_the_emulation_rounds_like_float16_in_numpy():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, 8)).astype(np.float32)
    model = with_named_nodes(
        model_of(
            [
                helper.make_node("MatMul", ["x", "w"], ["product"]),
                helper.make_node("Mul", ["product", "k"], ["y"]),
            ],
            [("x", ["batch", 8])],
            [("y", ["batch", 8])],
            [("w", weights), ("k", np.float32(1 / 3))],
        )
    )
    reduction = half_precision(model)
    # Exact in float16, so that only the order of sums could differ, and products of 11 bits sum exactly.
    x = rng.integers(-8, 8, size=(3, 8)).astype(np.float32)
    product = (x.astype(np.float64) @ weights.astype(np.float16)).astype(np.float16)
    expected = (product * np.float16(1 / 3)).astype(np.float32)
    (layer,) = reduction.layers
    found = open_onnxruntime(reduction.emulate([layer]).SerializeToString())(x)
    np.testing.assert_array_equal(found, expected)
    exact = x @ weights / 3
    assert 0 < np.abs(found - exact).max() < 5e-3


def test_emulation_and_half_graph_agree_in_two_engines(model, inputs):
    reduction = half_precision(model)
    emulated = open_onnxruntime(reduction.emulate(LAYERS).SerializeToString())(inputs)
    exact = open_onnxruntime(model.SerializeToString())(inputs)
    made = reduction.build(LAYERS).SerializeToString()
    assert 1e-5 < np.abs(emulated - exact).max() < 5e-3
    for load in (open_onnxruntime, open_reference):
        assert np.abs(load(made)(inputs) - emulated).max() < 5e-3


def test_an_overflow_that_the_cpu_provider_hides_shows_in_the_emulation(inputs):
    model = with_named_nodes(small_network("overflow"))
    reduction = half_precision(model)
    for layers, finite in ((LAYERS, False), (["first", "third"], True)):
        found = open_onnxruntime(reduction.emulate(layers).SerializeToString())(inputs)
        assert bool(np.isfinite(found).all()) is finite


def test_values_between_unreduced_nodes_are_not_touched(model):
    made = half_precision(model).build(["third"])
    before, after = ({node.name: node for node in each.graph.node} for each in (model, made))
    for name in ("scale", "shift", "log", "first", "relu_1", "second", "relu_2", "pool", "enlarge", "merge"):
        assert before[name] == after[name]
    for name in ("scale", "first.weight", "second.weight"):
        np.testing.assert_array_equal(weights_of(model, name), weights_of(made, name))


def test_counts_come_in_as_integers_and_a_reused_output_stays_float(model):
    nodes = [
        helper.make_node("Cast", ["x"], ["amplitude"], to=FLOAT),
        helper.make_node("MatMul", ["amplitude", "w"], ["y"]),
        helper.make_node("MatMul", ["y", "w"], ["z"]),
    ]
    model = model_of(
        nodes,
        [("x", ["batch", 4])],
        [("y", ["batch", 4]), ("z", ["batch", 4])],
        [("w", np.eye(4, dtype="f4"))],
    )
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT16
    model = with_named_nodes(model)
    reduction = half_precision(model)
    made = reduction.build(reduction.layers)
    onnx.checker.check_model(made, full_check=True)
    types = inferred_types(made)
    assert (types["x"], types["y"], types["z"]) == (TensorProto.UINT16, FLOAT, FLOAT)
    counts = np.arange(8, dtype=np.uint16).reshape(2, 4)
    for form in (made, reduction.emulate(reduction.layers)):
        both = open_onnxruntime(form.SerializeToString())(counts).reshape(2, 2, 4)
        np.testing.assert_array_equal(both, np.stack([counts, counts]))


def test_a_graph_that_branches_is_refused():
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["inside"])],
        "inner",
        [],
        [helper.make_tensor_value_info("inside", FLOAT, None)],
    )
    choice = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    model = model_of([choice], [("x", [2])], [("y", [2])], [("c", np.array(True))])
    with pytest.raises(InputError, match="branches or loops"):
        with_named_nodes(model)


def test_a_layer_is_described_by_its_weights(model):
    assert describe_layer(model, "second") == "second (second.weight)"
    renamed = small_network()
    renamed.graph.initializer[4].name = renamed.graph.node[5].input[1] = "second.input_1"
    assert describe_layer(renamed, "second") == "second (weights 4 x 4 x 3 x 3)"
    assert describe_layer(model, "log") == "log"
