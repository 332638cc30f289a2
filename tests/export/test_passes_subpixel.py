"""A doubled image is convolved before its pixels are repeated, with the same output including the borders."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from ptychonnx.export.graph.inspection import multiply_adds
from ptychonnx.export.passes.concatenation_splitting import ConcatenationSplittingPass
from ptychonnx.export.passes.subpixel_convolution import SubpixelConvolutionPass
from ptychonnx.export.passes.subpixel_head import SubpixelHeadPass
from tests.export.graphs import kinds, model_of, run

GENERATOR = np.random.default_rng(0)
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
SAME = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
SCALES = np.array([1, 1, 2, 2], dtype=np.float32)


def array(*shape):
    return GENERATOR.normal(size=shape).astype(np.float32)


def applied(model, *steps):
    graph, modified = ir.from_proto(model), []
    for step in steps:
        result = step(graph)
        graph = result.model
        modified.append(result.modified)
    return ir.to_proto(graph), modified


def graph_of(nodes, channels, size, constants, outputs):
    """x and, at twice its size, z in; y out."""
    rows, columns = size
    return model_of(
        nodes,
        [("x", ["batch", channels, rows, columns]), ("z", ["batch", 3, 2 * rows, 2 * columns])],
        [("y", ["batch", outputs, 2 * rows, 2 * columns])],
        [("scales", SCALES), *constants.items()],
    )


def agrees(before, after, channels, size, batch=3):
    rows, columns = size
    inputs = {"x": array(batch, channels, rows, columns), "z": array(batch, 3, 2 * rows, 2 * columns)}
    (expected,), (found,) = run(before, **inputs), run(after, **inputs)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def convolved(channels=32, outputs=5, size=(4, 7), bias=True, scales="scales", **changes):
    attributes = {**SAME, **changes}
    nodes = [
        helper.make_node("Resize", ["x", "", scales], ["u"], **NEAREST),
        helper.make_node("Conv", ["u", "w", *(["b"] if bias else [])], ["c"], **attributes),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    side = attributes["kernel_shape"][0]
    constants = {"w": array(outputs, channels, side, side), "b": array(outputs)}
    return graph_of(nodes, channels, size, constants, outputs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (4, 7), (8, 8)])
def test_an_image_is_convolved_before_its_pixels_are_repeated(size, bias):
    before = convolved(size=size, bias=bias)
    after, modified = applied(before, SubpixelConvolutionPass())
    assert modified == [True]
    # The activation stays behind the convolution, where engines fuse the two.
    assert kinds(after)[-8:-6] == ["Conv", "Relu"]
    agrees(before, after, 32, size)


def test_four_ninths_of_the_products_are_left():
    before = convolved(size=(64, 64))
    after, _ = applied(before, SubpixelConvolutionPass())
    assert multiply_adds(before) == 128 * 128 * 5 * 32 * 9
    assert multiply_adds(after) == 65 * 65 * 4 * 5 * 32 * 4


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 31},
        {"kernel_shape": [1, 1], "pads": [0, 0, 0, 0]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    ],
    ids=str,
)
def test_other_convolutions_are_left_as_they_are(changes):
    before = convolved(**changes)
    after, modified = applied(before, SubpixelConvolutionPass())
    assert modified == [False]
    assert kinds(after) == kinds(before)


def test_an_image_that_is_interpolated_otherwise_is_left_as_it_is():
    before = convolved()
    before.graph.node[0].attribute[0].s = b"linear"
    assert applied(before, SubpixelConvolutionPass())[1] == [False]


def head(channels=6, outputs=1, size=(4, 7), activation="Relu", bias=True):
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["u"], **NEAREST),
        helper.make_node("Conv", ["u", "w", "b"], ["c"], **SAME),
        *([] if activation is None else [helper.make_node(activation, ["c"], ["a"])]),
        helper.make_node("Conv", ["a" if activation else "c", "v", *(["d"] if bias else [])], ["y"], **SAME),
    ]
    # A bias that would show if a border were not treated as nothing.
    constants = {
        "w": array(5, channels, 3, 3),
        "b": array(5) + 3,
        "v": array(outputs, 5, 3, 3),
        "d": array(outputs),
    }
    return graph_of(nodes, channels, size, constants, outputs)


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", None])
@pytest.mark.parametrize("size", [(1, 2), (4, 7)])
def test_a_head_is_computed_from_the_parities_of_rows_and_columns(size, activation, outputs):
    before = head(size=size, activation=activation, outputs=outputs, bias=outputs > 1)
    after, modified = applied(before, SubpixelHeadPass())
    assert modified == [True]
    assert "Resize" in kinds(after), "which is dead, and left to the removal of unused nodes"
    assert kinds(after).count("Conv") == 8
    agrees(before, after, 6, size)


def test_a_head_of_many_channels_is_left_as_it_is():
    assert applied(head(outputs=5), SubpixelHeadPass())[1] == [False]


def test_a_value_that_is_read_elsewhere_is_still_there():
    before = head()
    before.graph.node.append(helper.make_node("Neg", ["a"], ["n"]))
    before.graph.output.append(helper.make_tensor_value_info("n", 1, ["batch", 5, 8, 14]))
    assert applied(before, SubpixelHeadPass())[1] == [False]


def joined(order, outputs, attributes=SAME):
    """Convolution of a doubled image, beside another of twice its size."""
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["u"], **NEAREST),
        helper.make_node("Concat", order, ["j"], axis=1),
        helper.make_node("Conv", ["j", "w", "b"], ["y"], **attributes),
    ]
    channels = sum({"u": 32, "z": 3}[name] for name in order)
    constants = {"w": array(outputs, channels, 3, 3), "b": array(outputs)}
    return graph_of(nodes, 32, (4, 7), constants, outputs)


@pytest.mark.parametrize("order", [["u", "z"], ["z", "u"], ["z", "u", "z"], ["u", "z", "u"]], ids=str)
def test_a_doubled_image_in_a_concatenation_is_convolved_by_itself(order):
    before = joined(order, 6)
    after, modified = applied(before, ConcatenationSplittingPass(), SubpixelConvolutionPass())
    assert modified == [True, True]
    # What neither pass takes stays together.
    assert kinds(after).count("Concat") == (1 if order.count("z") > 1 else 0)
    assert kinds(after).count("Conv") == order.count("u") + 1
    agrees(before, after, 32, (4, 7))


def test_a_concatenation_that_gains_nothing_stays():
    before = joined(["u", "z"], 6)
    before.graph.node[1].input[0] = "z"
    weight = next(tensor for tensor in before.graph.initializer if tensor.name == "w")
    weight.CopyFrom(numpy_helper.from_array(array(6, 6, 3, 3), "w"))
    after, modified = applied(before, ConcatenationSplittingPass())
    assert modified == [False]
    assert kinds(after) == kinds(before)
