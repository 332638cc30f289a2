"""Files of `export-module` on servers: their own inputs and outputs, warm-up from their reference input."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("tritonclient")

from ptychonnx.export.artifact.module_description import ModuleDescription
from ptychonnx.export.artifact.publication import publish
from ptychonnx.export.deploy.deploy_options import DeployOptions, MLServerOptions
from ptychonnx.export.deploy.deployable import read_artifacts, read_stamp
from ptychonnx.export.deploy.mlserver import plan_mlserver
from ptychonnx.export.deploy.openvino import plan_openvino
from ptychonnx.export.deploy.triton import plan_triton
from ptychonnx.export.deploy.triton_config import parse_config
from ptychonnx.export.deploy.versioned_folder import apply
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.runtime.errors import InputError


def write_module(path, *, shared=False, name="x"):
    """x [batch, 3] + t [batch, 1], and the largest index; `shared` t has no batch axis."""
    t_shape = [1] if shared else ["batch"]
    nodes = [
        helper.make_node("Unsqueeze", ["t", "one"], ["column"]),
        helper.make_node("Add", [name, "column"], ["sum"]),
        helper.make_node("ArgMax", ["sum"], ["largest"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "module",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, t_shape),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("largest", TensorProto.INT64, ["batch"]),
        ],
        [onnx.numpy_helper.from_array(np.array([1]), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    publish(model, ModuleDescription(source="net.py:build", bounds={}), path)
    return path


def test_triton_gets_the_inputs_and_outputs_of_the_graph_and_warms_up_with_its_reference(tmp_path):
    (artifact,) = read_artifacts([write_module(tmp_path / "net.onnx")])
    assert artifact.contract is None
    apply(plan_triton(tmp_path / "repo", [artifact], DeployOptions()))
    folder = tmp_path / "repo" / "net"
    config = parse_config((folder / "config.pbtxt").read_text())
    assert [(entry.name, [*entry.dims]) for entry in config.input] == [("x", [3]), ("t", [1])]
    assert [(entry.name, [*entry.dims]) for entry in config.output] == [("sum", [3]), ("largest", [1])]
    # Triton knows no tensor without axes.
    assert [entry.HasField("reshape") for entry in (*config.input, *config.output)] == [False, True] * 2
    assert config.max_batch_size > 0
    assert json.loads(config.parameters["ptychonnx.module"].string_value)["source"] == "net.py:build"
    x, t = artifact.stamped.reference
    assert (folder / "warmup" / "reference_x.bin").read_bytes() == x[:1].tobytes()
    total, _ = np.split(open_onnxruntime((folder / "1" / "model.onnx").read_bytes())(x, t), [6])
    np.testing.assert_allclose(total.reshape(2, 3), x + t[:, None], rtol=1e-6)
    readme = (folder / "README.md").read_text()
    assert "| input | `x: float32 [batch, 3]; t: float32 [batch]` |" in readme
    assert "## Description of version 1" in readme


def test_a_graph_with_an_input_without_batch_is_served_as_it_is(tmp_path):
    (artifact,) = read_artifacts([write_module(tmp_path / "net.onnx", shared=True)])
    apply(plan_triton(tmp_path / "repo", [artifact], DeployOptions()))
    config = parse_config((tmp_path / "repo" / "net" / "config.pbtxt").read_text())
    assert config.max_batch_size == 0
    assert [[*entry.dims] for entry in (*config.input, *config.output)] == [[-1, 3], [1], [-1, 3], [-1]]
    (warmup,) = config.model_warmup
    assert [*warmup.inputs["x"].dims] == [2, 3]
    x = artifact.stamped.reference[0]
    assert (tmp_path / "repo" / "net" / "warmup" / "reference_x.bin").read_bytes() == x.tobytes()


def test_the_other_servers_take_it_and_versions_must_share_one_interface(tmp_path):
    artifacts = read_artifacts([write_module(tmp_path / "net.onnx")])
    apply(plan_openvino(tmp_path / "ovms", artifacts, DeployOptions()))
    assert (tmp_path / "ovms" / "net" / "1" / "model.onnx").read_bytes() == artifacts[0].data
    apply(plan_mlserver(tmp_path / "ml", artifacts, DeployOptions(), MLServerOptions()))
    settings = json.loads((tmp_path / "ml" / "net" / "1" / "model-settings.json").read_text())
    assert settings["outputs"] == [
        {"name": "sum", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "largest", "datatype": "INT64", "shape": [-1]},
    ]
    assert read_stamp(tmp_path / "ml" / "net" / "1" / "model.onnx").interface == artifacts[0].interface
    other = read_artifacts([write_module(tmp_path / "other" / "net.onnx", shared=True)])
    with pytest.raises(InputError, match="all versions of a model must have one interface"):
        plan_openvino(tmp_path / "ovms", other, DeployOptions(append_version=True))


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"has a tensor '\.\./x'"):
        read_artifacts([write_module(tmp_path / "net.onnx", name="../x")])
