"""Convolutions become 8-bit, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.export.graph.inspection import check_graph
from ptychonnx.export.precision.int8 import eight_bit
from ptychonnx.export.precision.reducible_layers import with_named_nodes
from ptychonnx.export.precision.sensitivity import output_change
from ptychonnx.export.verification.engines import open_onnxruntime, open_reference
from tests.export.small_network import LAYERS, scan_of_noise, small_network, weights_of


@pytest.fixture(scope="module")
def model():
    return with_named_nodes(small_network())


@pytest.fixture(scope="module")
def batches():
    return list(scan_of_noise().diffraction[:, None].reshape(5, 5, 1, 16, 16))


@pytest.fixture(scope="module")
def reduction(model, batches):
    return eight_bit(model, [(batch,) for batch in batches])


def test_weights_take_seven_bits_with_a_scale_for_each_channel(reduction, model):
    made = reduction.build(LAYERS)
    check_graph(made.SerializeToString())
    assert reduction.layers == tuple(LAYERS)
    for layer in LAYERS:
        quantised = weights_of(made, f"{layer}.weight_quantized")
        scales = weights_of(made, f"{layer}.weight_scale")
        exact = weights_of(model, f"{layer}.weight")
        assert quantised.dtype == np.int8
        # More would overflow the 16-bit sums of processors without VNNI.
        assert 60 <= np.abs(quantised.astype(int)).max() <= 64
        assert scales.shape == (len(exact),)
        rebuilt = quantised * scales.reshape(-1, 1, 1, 1)
        assert np.abs(rebuilt - exact).max() <= 0.51 * scales.max()


def test_the_network_answers_nearly_alike_in_two_engines(reduction, model, batches):
    exact = open_onnxruntime(model.SerializeToString())(batches[0])
    made = reduction.build(LAYERS).SerializeToString()
    for load in (open_onnxruntime, open_reference):
        assert 1e-4 < output_change(load(made)(batches[0]), exact) < 0.05


def test_unreduced_layers_and_everything_around_keep_their_constants(reduction, model):
    made = reduction.build(["second"])
    for name in ("scale", "one", "first.weight", "first.bias", "third.weight"):
        np.testing.assert_array_equal(weights_of(made, name), weights_of(model, name))
    kinds = {node.name: node.op_type for node in made.graph.node}
    assert {"scale", "shift", "log", "first", "second", "third"} <= set(kinds)
    assert weights_of(made, "second.weight_quantized").dtype == np.int8
    assert not any(entry.name.startswith("first.weight_quantized") for entry in made.graph.initializer)


def test_pooling_and_enlarging_between_layers_work_on_integers(reduction):
    made = reduction.build(LAYERS)
    makers = {name: node.op_type for node in made.graph.node for name in node.output}
    nodes = {node.name: node for node in made.graph.node}
    assert makers[nodes["pool"].input[0]] == "DequantizeLinear"
    assert "relu_1" not in nodes  # the range of the unsigned integers does what the ReLU did
    assert makers[nodes["log"].input[0]] == "Add"


def test_nothing_is_printed_and_no_file_is_left(model, batches, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    eight_bit(model, [(batches[0],)]).build(LAYERS)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
