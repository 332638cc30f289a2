"""No trace of the exporting machine stays in the graph, and names do not depend on the process."""

from __future__ import annotations

import numpy as np
import pytest

ir = pytest.importorskip("onnx_ir")

from onnx import helper  # noqa: E402

from ptychonnx.export.passes import clean  # noqa: E402
from ptychonnx.export.passes.metadata_removal import MetadataRemovalPass  # noqa: E402
from tests.export.graphs import kinds, model_of, run  # noqa: E402

SECRET = "/somewhere/site-packages/layer.py"


def littered(counter):
    nodes = [
        helper.make_node("Identity", ["x"], ["copy"], name=f"net/copy__{counter}"),
        helper.make_node(
            "Mul", ["copy", "lifter.0.weight"], [f"net/a__{counter}"], name=f"net/mul__{counter}"
        ),
        helper.make_node("Add", [f"net/a__{counter}", f"const__{counter}"], ["y"], name="net/add"),
    ]
    constants = [("lifter.0.weight", np.float32([2, 3])), (f"const__{counter}", np.float32([1, 1]))]
    model = model_of(
        nodes, [("x", [f"unk__{counter}", 2])], [("y", [f"unk__{counter + 1}", 2])], constants, 20
    )
    model.doc_string = model.graph.doc_string = SECRET
    model.graph.name = f"main_{counter}"
    model.producer_name = "somebody"
    helper.set_model_props(model, {"origin": SECRET})
    for part in (*model.graph.node, *model.graph.input, *model.graph.initializer, model.graph):
        part.doc_string = SECRET
        part.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=SECRET)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    model.ir_version = 12
    return model


def test_metadata_goes_and_the_outputs_stay():
    before = littered(7)
    graph = ir.from_proto(littered(7))
    assert MetadataRemovalPass("1.2")(graph).modified
    after = ir.to_proto(graph)
    data = after.SerializeToString()
    assert SECRET.encode() in before.SerializeToString()
    for trace in (b"site-packages", b"stack_trace", b"somebody", b"main_7", b"ai.onnx.ml"):
        assert trace not in data
    assert "/" not in str(after)
    assert (after.producer_name, after.producer_version, after.ir_version) == ("ptychonnx", "1.2", 10)
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in after.graph.input] == ["batch"]
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in after.graph.output] == ["batch"]
    assert [tensor.name for tensor in after.graph.initializer] == ["lifter.0.weight", "Add_2.input_1"]
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    assert np.array_equal(run(after, x=x)[0], run(before, x=x)[0])


def test_the_pipeline_lists_its_changes_and_keeps_the_original_model():
    before = littered(1)
    data = before.SerializeToString()
    cleaned = clean(before)
    assert before.SerializeToString() == data
    assert kinds(cleaned.model) == ["Mul", "Add"]
    assert cleaned.passes == ["IdentityElimination", "MetadataRemoval"]
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    assert np.array_equal(run(cleaned.model, x=x)[0], run(before, x=x)[0])


def test_the_bytes_do_not_depend_on_the_counters_of_the_exporter():
    one, other = (clean(littered(counter)).model.SerializeToString() for counter in (1, 50))
    assert one == other


def test_a_constant_named_by_an_earlier_cleaning_never_takes_the_name_of_a_node():
    # As a graph that was cleaned before, one of whose nodes has since been folded.
    nodes = [
        helper.make_node("Mul", ["x", "Gather_1.output_0"], ["Mul_5.output_0"], name="Mul_5"),
        helper.make_node("Add", ["Mul_5.output_0", "Mul_0.output_0"], ["y"], name="Add_6"),
    ]
    constants = [("Gather_1.output_0", np.float32([2, 3])), ("Mul_0.output_0", np.float32([1, 1]))]
    before = model_of(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], constants, 20)
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    expected = run(before, x=x)[0]
    graph = ir.from_proto(before)
    MetadataRemovalPass("1.2")(graph)
    after = ir.to_proto(graph)
    assert [tensor.name for tensor in after.graph.initializer] == ["Mul_0.input_1", "Add_1.input_1"]
    assert np.array_equal(run(after, x=x)[0], expected)
