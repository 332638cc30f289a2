"""Cubic interpolation by two matrices agrees with the operator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ptychonnx.export.passes.cubic_resize import CubicResizePass
from tests.export.graphs import kinds, model_of, run

X = np.random.default_rng(0).normal(size=(3, 2, 8, 9)).astype(np.float32)


def interpolation(rows, columns, *, by_sizes, **attributes):
    """To a size that is computed from the batch, as torch writes it, or by scales."""
    given = ["x", "", "", "to"] if by_sizes else ["x", "", "scales"]
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "others"], ["to"], axis=0),
        helper.make_node("Resize", given, ["r"], **{"mode": "cubic", **attributes}),
        helper.make_node("Neg", ["r"], ["y"]),
    ]
    constants = [
        ("others", np.array([2, rows, columns])),
        ("scales", np.array([1, 1, rows / 8, columns / 9], np.float32)),
    ]
    return model_of(nodes, [("x", ["batch", 2, 8, 9])], [("y", ["batch", 2, rows, columns])], constants)


def applied(model):
    graph = ir.from_proto(model)
    # The size of the batch has a name, as exporters give it.
    for node in graph.graph:
        for value in node.outputs:
            if value.name == "r":
                value.dtype = ir.DataType.FLOAT
                value.shape = ir.Shape(["batch", *graph.graph.outputs[0].shape[1:]])
    result = CubicResizePass()(graph)
    RemoveUnusedNodesPass()(graph)
    return ir.to_proto(result.model), result.modified


@pytest.mark.parametrize(
    "attributes",
    [
        {"coordinate_transformation_mode": "align_corners", "cubic_coeff_a": -0.75},
        {"coordinate_transformation_mode": "half_pixel"},
        {"coordinate_transformation_mode": "asymmetric", "exclude_outside": 1},
        {"coordinate_transformation_mode": "half_pixel", "antialias": 1},
    ],
    ids=["align_corners", "half_pixel", "asymmetric", "antialias"],
)
@pytest.mark.parametrize(("rows", "columns"), [(16, 18), (4, 6), (8, 12)])
@pytest.mark.parametrize("by_sizes", [True, False])
def test_products_agree_with_the_operator(attributes, rows, columns, by_sizes):
    before = interpolation(rows, columns, by_sizes=by_sizes, **attributes)
    after, modified = applied(before)
    assert modified
    assert kinds(after) == ["MatMul", "MatMul", "Neg"]
    np.testing.assert_allclose(run(after, x=X)[0], run(before, x=X)[0], atol=1e-5)


def test_other_modes_and_unknown_sizes_stay():
    assert not applied(interpolation(16, 18, by_sizes=True, mode="linear"))[1]
    model = interpolation(16, 18, by_sizes=True)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "rows"
    assert not applied(model)[1]
