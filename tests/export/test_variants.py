"""Counts and fixed batches agree with the graph of amplitudes; a graph can be converted to a later opset."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ptychonnx.export.artifact.graph_variants import counts_input, fix_batch
from ptychonnx.export.graph.inspection import check_graph, operators
from ptychonnx.export.graph.opset import opset_of, to_opset
from ptychonnx.export.verification.engines import open_onnxruntime, open_reference
from ptychonnx.runtime.errors import InputError, VerificationError
from tests.export.graphs import model_of

COUNTS = np.random.default_rng(0).integers(0, 65536, (5, 1, 4, 4)).astype(np.uint16)


def network(opset=20):
    """The input is read twice, and its batch carried along by a Reshape."""
    return model_of(
        [
            helper.make_node("Reshape", ["diffraction", "rows"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["product"]),
            helper.make_node("Reshape", ["product", "image"], ["square"]),
            helper.make_node("Add", ["square", "diffraction"], ["object"]),
        ],
        [("diffraction", ["batch", 1, 4, 4])],
        [("object", ["batch", 1, 4, 4])],
        [
            ("rows", np.array([-1, 16])),
            ("image", np.array([-1, 1, 4, 4])),
            ("weight", np.random.default_rng(1).normal(size=(16, 16)).astype(np.float32)),
        ],
        opset=opset,
    )


def run(model, inputs):
    return open_onnxruntime(model.SerializeToString())(inputs)


def test_counts_agree_with_their_square_roots_bit_for_bit():
    made = counts_input(network())
    assert made.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT16
    check_graph(made.SerializeToString())
    np.testing.assert_array_equal(run(made, COUNTS), run(network(), np.sqrt(COUNTS.astype(np.float32))))
    assert operators(made) - operators(network()) == {"Cast": 1, "Sqrt": 1}


def test_a_masked_pixel_changes_nothing_whatever_it_holds():
    mask = np.ones((4, 4), bool)
    mask[1, 2] = mask[3, 0] = False
    made = counts_input(network(), mask)
    hot, dark = COUNTS.copy(), COUNTS.copy()
    hot[..., ~mask], dark[..., ~mask] = 65535, 0
    np.testing.assert_array_equal(run(made, hot), run(made, dark))
    np.testing.assert_array_equal(run(made, hot), run(network(), np.sqrt(dark.astype(np.float32))))
    with pytest.raises(InputError, match=r"mask is \(3, 3\), expected \(4, 4\)"):
        counts_input(network(), np.eye(3, dtype=bool))
    with pytest.raises(InputError, match="has no valid pixel"):
        counts_input(network(), np.zeros((4, 4), bool))


def test_a_fixed_batch_agrees_with_a_dynamic_one():
    made = fix_batch(counts_input(network()), 5)
    check_graph(made.SerializeToString(), batch=5)
    np.testing.assert_array_equal(run(made, COUNTS), run(counts_input(network()), COUNTS))
    with pytest.raises(VerificationError, match="is fixed"):
        check_graph(made.SerializeToString())
    with pytest.raises(VerificationError, match="is 5, expected 4"):
        check_graph(made.SerializeToString(), batch=4)
    with pytest.raises(VerificationError, match="is dynamic, expected 4"):
        check_graph(network().SerializeToString(), batch=4)
    with pytest.raises(InputError, match="batch is 0"):
        fix_batch(network(), 0)


def test_variants_leave_the_graph_they_were_made_from():
    model = network()
    before = model.SerializeToString(deterministic=True)
    fix_batch(counts_input(model), 2)
    to_opset(model, 21)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("opset", [18, 19, 20, 21, 22, 23])
def test_a_graph_in_a_later_opset_is_valid_and_agrees(opset):
    raised = to_opset(network(18), opset)
    onnx.checker.check_model(raised, full_check=True)
    assert opset_of(raised) == opset
    inputs = COUNTS.astype(np.float32)
    expected = open_reference(network(18).SerializeToString())(inputs)
    np.testing.assert_allclose(run(raised, inputs), expected, rtol=1e-5, atol=1)


@pytest.mark.parametrize(
    ("opset", "reason"), [(17, "expected 18 to 23"), (24, "expected 18 to 23"), (19, "at most 19")]
)
def test_versions_that_cannot_be_written_are_refused(opset, reason):
    with pytest.raises(InputError, match=reason):
        to_opset(network(20), opset)
