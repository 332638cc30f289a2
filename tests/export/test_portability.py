"""The operator lists agree with known facts about the engines, and a graph is looked up node by node."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ptychonnx.export.artifact.graph_variants import counts_input
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.portability import portability, require, targets
from ptychonnx.export.portability.refresh import (
    highest_opset,
    kernels_of,
    probe_openvino,
    read_operators_table,
)
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.runtime.errors import InputError, VerificationError
from tests.export.graphs import model_of

TARGETS = {target.name: target for target in targets()}


def network(opset=20, operator="Gelu", **attributes):
    return model_of(
        [
            helper.make_node("MatMul", ["diffraction", "weight"], ["product"]),
            helper.make_node(operator, ["product"], ["object"], name="last", **attributes),
        ],
        [("diffraction", ["batch", 4, 4])],
        [("object", ["batch", 4, 4])],
        [("weight", np.eye(4, dtype=np.float32))],
        opset=opset,
    )


def test_every_list_states_its_source_and_version():
    for target in TARGETS.values():
        assert target.version in target.source
        assert len(target.kernels) > 100
    assert set(TARGETS) == {"cpu", "cuda", "tensorrt", "openvino"}


def test_no_gpu_has_a_fourier_transform_and_all_have_the_operators_of_lowering():
    for name in ("cuda", "tensorrt"):
        assert "DFT" not in TARGETS[name].kernels
        assert {"MatMul", "Conv", "Gelu", "Reshape", "Transpose", "Concat", "Slice", "Resize"} <= set(
            TARGETS[name].kernels
        )
    assert "DFT" in TARGETS["cpu"].kernels


def test_a_portable_graph_runs_on_every_target():
    table = portability(network())
    assert not table.missing
    assert all(table.runs_on(name) for name in TARGETS)
    assert [(row.name, row.types, row.count) for row in table.operators] == [
        ("Gelu", ("float",), 1),
        ("MatMul", ("float", "float"), 1),
    ]


def test_a_node_that_would_fall_back_is_named_with_the_reason():
    model = network(18, "Hardmax")
    with pytest.raises(
        VerificationError, match=r"^cuda: node last \(Hardmax\) would not run there: .* has no Hardmax"
    ):
        require(model, "cuda")
    require(model, "cpu")


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_a_fourier_transform_in_the_graph_is_refused_on_a_gpu(target):
    model = model_of(
        [helper.make_node("DFT", ["diffraction"], ["object"], name="fourier")],
        [("diffraction", ["batch", 4, 4, 2])],
        [("object", ["batch", 4, 4, 2])],
        opset=20,
    )
    require(model, "cpu")
    with pytest.raises(
        VerificationError, match=rf"^{target}: node fourier \(DFT\) would not run there: .* has no DFT$"
    ):
        require(model, target)


def test_types_count_and_not_only_names():
    counts = counts_input(network())
    require(counts, "cuda")
    with pytest.raises(VerificationError, match=r"\(Cast\) .* no Cast for uint16"):
        require(counts, "tensorrt")


def test_an_open_kernel_serves_the_version_it_was_written_for_as_in_onnxruntime():
    entries = [
        ("P", "", "Op", (7, 12), {"T": ["tensor(float)"]}),
        ("P", "", "Op", (13, 2**31 - 1), {"T": ["tensor(float)"]}),
        ("P", "", "Op", (13, 2**31 - 1), {"T": ["tensor(double)", "seq(tensor(float))"]}),
        ("Q", "", "Op", (1, 6), {}),
        ("P", "com.microsoft", "Other", (1, 6), {}),
    ]
    assert kernels_of("P", entries) == {
        "Op": [[7, 12, {"T": ["float"]}], [13, None, {"T": ["double", "float"]}]]
    }
    (gelu,) = TARGETS["cpu"].kernels["Gelu"]
    assert gelu.implements(20)
    assert not gelu.implements(21)


def test_nodes_inside_branches_count():
    def branch(name, operator):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph(
            [helper.make_node(operator, ["product"], [name], name=name)], name, [], [value]
        )

    branches = {"then_branch": branch("then", "Hardmax"), "else_branch": branch("else", "Relu")}
    model = model_of(
        [
            helper.make_node("MatMul", ["diffraction", "weight"], ["product"]),
            helper.make_node("If", ["condition"], ["object"], **branches),
        ],
        [("diffraction", ["batch", 4, 4])],
        [("object", ["batch", 4, 4])],
        [("weight", np.eye(4, dtype=np.float32)), ("condition", np.array(True))],
    )
    rows = {row.name: row.types for row in portability(model).operators}
    assert set(rows) == set(operators(model)) == {"MatMul", "If", "Hardmax", "Relu"}
    assert rows["Relu"] == ("float",)
    with pytest.raises(VerificationError, match=r"^cuda: node then \(Hardmax\) would not run there"):
        require(model, "cuda")


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_the_last_opset_is_that_of_the_listed_onnxruntime_and_not_of_the_onnx_package(name):
    if onnxruntime.__version__ != TARGETS[name].version:
        pytest.skip(f"the list is of onnxruntime {TARGETS[name].version}")
    assert TARGETS[name].opsets[1] == highest_opset()


PAIRS = [
    (operator, kind)
    for operator in ("Abs", "Relu", "Sqrt", "Tanh", "Sin")
    for kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT16, TensorProto.INT32)
    if f"tensor({TensorProto.DataType.Name(kind).lower()})"
    in onnx.defs.get_schema(operator, 20).inputs[0].types
]


@pytest.mark.parametrize(("operator", "kind"), PAIRS)
def test_the_list_of_the_cpu_agrees_with_onnxruntime(operator, kind):
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], name="node")],
        "one",
        [helper.make_tensor_value_info("x", kind, [2])],
        [helper.make_tensor_value_info("y", kind, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    claimed = portability(model).runs_on("cpu")
    try:
        open_onnxruntime(model.SerializeToString(), optimised=False)
        loads = True
    except VerificationError:
        loads = False
    # onnxruntime casts half precision to float32 where it has no kernel.
    assert loads == (claimed or kind == TensorProto.FLOAT16)


def test_the_list_of_openvino_is_that_of_the_installed_one():
    openvino = pytest.importorskip("openvino", reason="OpenVINO is an extra")
    if not openvino.__version__.startswith(TARGETS["openvino"].version):
        pytest.skip(f"the list is of OpenVINO {TARGETS['openvino'].version}")
    listed = {
        name: [[kernel.since, kernel.until, {}] for kernel in kernels]
        for name, kernels in TARGETS["openvino"].kernels.items()
    }
    assert probe_openvino() == listed


def test_the_table_of_tensorrt_is_read():
    text = (
        "TensorRT 10.9 supports operators in the inclusive range of opset 9 to opset 22. More.\n"
        "| Operator | Supported | Supported Types | Restrictions |\n|---|---|---|---|\n"
        "| Abs | Y | FP32, FP16, INT64 |\n| DFT | N |\n| Selu | Y | FP32, |\n"
    )
    assert read_operators_table(text) == (
        "10.9",
        (9, 22),
        {"Abs": [[1, 22, {"*": ["float", "float16", "int64"]}]], "Selu": [[1, 22, {"*": ["float"]}]]},
    )


def test_an_unknown_target_is_refused():
    with pytest.raises(
        InputError, match=r"target 'tpu' is unknown, expected one of cpu, cuda, tensorrt, openvino"
    ):
        require(network(), "tpu")
