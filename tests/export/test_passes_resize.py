"""Repeated pixels become one Resize, bit for bit, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

ir = pytest.importorskip("onnx_ir")

from onnx import helper  # noqa: E402
from onnx_ir.passes.common import RemoveUnusedNodesPass  # noqa: E402

from ptychonnx.export.passes.nearest_resize import RepetitionToResizePass, SizesToScalesPass  # noqa: E402
from tests.export.graphs import kinds, model_of, run  # noqa: E402

INT = np.int64


def repeat_graph(axis, factor, *, tile=None, target=None, transpose=None, shape=("b", 3, 4, 5)):
    """The chain that tf2onnx writes for `tf.repeat` on one axis of a value [b, 3, 4, 5]."""
    tiles = tile or [factor if position == axis + 1 else 1 for position in range(5)]
    out = target or [
        size * (factor if position == axis else 1) for position, size in enumerate((1, *shape[1:]))
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "sizes"], ["target"], axis=0),
        helper.make_node("Unsqueeze", ["x", "axis"], ["wide"]),
        helper.make_node("Tile", ["wide", "tiles"], ["tiled"]),
    ]
    source = "tiled"
    if transpose:
        nodes.append(helper.make_node("Transpose", ["tiled"], ["moved"], perm=transpose))
        source = "moved"
    nodes.append(helper.make_node("Reshape", [source, "target"], ["y"]))
    constants = [
        ("zero", np.array([0], INT)),
        ("one", np.array([1], INT)),
        ("sizes", np.array(out[1:], INT)),
        ("axis", np.array([axis + 1], INT)),
        ("tiles", np.array(tiles, INT)),
    ]
    return model_of(nodes, [("x", list(shape))], [("y", ["b", *out[1:]])], constants)


def apply(model):
    graph = ir.from_proto(model)
    modified = RepetitionToResizePass()(graph).modified
    RemoveUnusedNodesPass()(graph)
    return ir.to_proto(graph), modified


@pytest.mark.parametrize(("axis", "factor"), [(1, 2), (2, 2), (3, 3), (2, 5)])
def test_a_repetition_becomes_a_resize_with_the_same_bits(axis, factor):
    before = repeat_graph(axis, factor)
    after, modified = apply(before)
    assert modified
    assert kinds(after) == ["Resize"]
    for batch in (1, 3):
        x = np.random.default_rng(0).normal(size=(batch, 3, 4, 5)).astype(np.float32)
        assert np.array_equal(run(after, x=x)[0], run(before, x=x)[0])
        assert np.array_equal(run(after, x=x)[0], x.repeat(factor, axis))


def test_a_transposition_inside_the_chain_is_kept_in_front():
    # [b, 3, 4, 1, 5] tiled on axis 3, moved to [b, 4, 5, 2, 3]: channels-first in, channels-last out.
    before = repeat_graph(2, 2, transpose=[0, 2, 4, 3, 1], target=[1, 4, 10, 3])
    after, modified = apply(before)
    assert modified
    assert kinds(after) == ["Transpose", "Resize"]
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(run(after, x=x)[0], run(before, x=x)[0])


@pytest.mark.parametrize(
    "before",
    [
        # The copies lie beside the whole axis, not beside each pixel.
        repeat_graph(2, 2, tile=[1, 1, 2, 1, 1], target=[1, 3, 8, 5]),
        # The sizes are right but the pixels are mixed with the channels.
        repeat_graph(2, 2, target=[1, 6, 4, 5]),
    ],
    ids=["tiled", "mixed"],
)
def test_other_chains_than_repetitions_stay(before):
    after, modified = apply(before)
    assert not modified
    assert "Resize" not in kinds(after)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(run(after, x=x)[0], run(before, x=x)[0])


def test_a_chain_whose_inside_is_read_elsewhere_is_left_alone():
    before = repeat_graph(2, 2)
    before.graph.node.append(helper.make_node("Neg", ["tiled"], ["z"]))
    before.graph.output.append(helper.make_tensor_value_info("z", 1, ["b", 3, 4, 2, 5]))
    assert not apply(before)[1]


@pytest.mark.parametrize(("factor", "changes", "rewritten"), [
    (2, {}, True),
    (3, {"nearest_mode": "floor"}, True),
    (2, {"coordinate_transformation_mode": "half_pixel"}, False),
    (1.5, {}, False),
])  # fmt: skip
def test_a_computed_size_becomes_whole_factors(factor, changes, rewritten):
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    side = int(4 * factor)
    model = model_of(
        [
            helper.make_node("Shape", ["x"], ["front"], start=0, end=2),
            helper.make_node("Concat", ["front", "sides"], ["sizes"], axis=0),
            helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes | changes),
        ],
        [("x", ["batch", 3, 4, 4])],
        [("y", ["batch", 3, side, side])],
        [("sides", np.array([side, side]))],
    )
    graph = ir.from_proto(model)
    result = SizesToScalesPass()(graph)
    ir.passes.common.RemoveUnusedNodesPass()(result.model)
    after = ir.to_proto(result.model)
    assert result.modified is rewritten
    assert ("Shape" in kinds(after)) is not rewritten
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(after, x=x)[0], run(model, x=x)[0])
