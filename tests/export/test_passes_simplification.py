"""Nodes without effect are removed, and two of a kind become one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from ptychonnx.export.passes.simplification import SimplificationPass
from tests.export.graphs import kinds, model_of, run

X = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("nodes", "constants", "left"),
    [
        ([("Cast", ["x"], {"to": TensorProto.FLOAT})], {}, []),
        ([("Mul", ["x", "c"], {})], {"c": np.float32(1)}, []),
        ([("Div", ["x", "c"], {})], {"c": np.float32(1)}, []),
        ([("Add", ["x", "c"], {})], {"c": np.float32(0)}, []),
        ([("Sub", ["x", "c"], {})], {"c": np.float32(0)}, []),
        ([("Transpose", ["x"], {"perm": [0, 1, 2]})], {}, []),
        (
            [("Reshape", ["x", "c"], {}), ("Reshape", ["", "d"], {})],
            {"c": np.array([-1, 4, 2]), "d": np.array([-1, 2, 4])},
            ["Reshape"],
        ),
        ([("Mul", ["x", "c"], {})], {"c": np.float32(2)}, ["Mul"]),
        ([("Add", ["x", "c"], {})], {"c": np.float32(1e-9)}, ["Add"]),
        ([("Sub", ["c", "x"], {})], {"c": np.float32(0)}, ["Sub"]),
    ],
    ids=["cast", "times-1", "by-1", "plus-0", "minus-0", "still", "reshapes", "times-2", "tiny", "negated"],
)
def test_only_nodes_without_effect_are_removed(nodes, constants, left):
    made, value = [], "x"
    for number, (kind, inputs, attributes) in enumerate(nodes):
        inputs = [value if name in ("", "x") else name for name in inputs]
        value = f"v{number}"
        made.append(helper.make_node(kind, inputs, [value], **attributes))
    made.append(helper.make_node("Relu", [value], ["y"]))
    model = model_of(made, [("x", ["batch", 2, 4])], [("y", ["batch", 2, 4])], list(constants.items()))
    graph = ir.from_proto(model)
    result = SimplificationPass()(graph)
    after = ir.to_proto(result.model)
    assert result.modified == (len(left) < len(nodes))
    assert kinds(after) == [*left, "Relu"]
    np.testing.assert_array_equal(run(after, x=X)[0], run(model, x=X)[0])


@pytest.mark.parametrize(
    ("axes", "left"), [([1], ["Squeeze"]), ([2], ["ReduceSum"]), ([1, 2], ["ReduceSum"])]
)
def test_a_sum_of_one_is_a_view(axes, left):
    summed = [size for axis, size in enumerate(["batch", 1, 8]) if axis not in axes]
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=0),
        helper.make_node("Neg", ["s"], ["y"]),
    ]
    model = model_of(nodes, [("x", ["batch", 1, 8])], [("y", summed)], [("axes", np.array(axes))])
    after = ir.to_proto(SimplificationPass()(ir.from_proto(model)).model)
    assert kinds(after) == [*left, "Neg"]
    x = X.reshape(3, 1, 8)
    np.testing.assert_array_equal(run(after, x=x)[0], run(model, x=x)[0])
