"""OpenVINO Model Server: the layout, the list of models, and the deployed file in OpenVINO itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import read_artifacts
from ptychonnx.export.deploy.openvino import plan_openvino
from ptychonnx.export.deploy.versioned_folder import apply
from ptychonnx.export.verification.reference_pair import contract_reference
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from tests.export.deployed import artifact, counts_artifact, files_of, fixed_artifact, golden


def deploy(root, *paths, **options):
    apply(plan_openvino(root, read_artifacts(paths), DeployOptions(**options)))
    return root


def config_of(root):
    return {
        entry["config"]["name"]: entry["config"]
        for entry in json.loads((root / "config.json").read_text())["model_config_list"]
    }


def test_the_folder_is_the_golden_one(tmp_path):
    root = deploy(tmp_path / "ovms", artifact(tmp_path / "small.onnx"), instances=2, threads=3)
    assert files_of(root) == {"config.json", "small/1/model.onnx", "small/README.md"}
    text = (root / "config.json").read_text()
    assert text == golden("openvino.json", text)


def test_other_models_of_the_list_stay(tmp_path):
    root = deploy(tmp_path / "ovms", artifact(tmp_path / "small.onnx"))
    document = json.loads((root / "config.json").read_text())
    document["model_config_list"].append({"config": {"name": "mine", "base_path": "/mine", "nireq": 4}})
    document["monitoring"] = {"metrics": {"enable": True}}
    (root / "config.json").write_text(json.dumps(document))
    deploy(root, artifact(tmp_path / "other.onnx"))
    assert list(config_of(root)) == ["mine", "other", "small"]
    assert config_of(root)["mine"] == {"name": "mine", "base_path": "/mine", "nireq": 4}
    assert json.loads((root / "config.json").read_text())["monitoring"] == {"metrics": {"enable": True}}


def test_a_second_version_does_not_touch_the_list(tmp_path):
    path = artifact(tmp_path / "small.onnx")
    root = deploy(tmp_path / "ovms", path)
    time = (root / "config.json").stat().st_mtime_ns
    deploy(root, path, append_version=True)
    deploy(root, path, append_version=True, prune=2)
    assert (root / "config.json").stat().st_mtime_ns == time
    assert {name for name in files_of(root) if name.endswith(".onnx")} == {
        "small/2/model.onnx",
        "small/3/model.onnx",
    }


def test_only_float32_is_held_to_float32(tmp_path):
    changed = {"exporter": "x", "opset": 20, "ir_version": 10, "lowering": "none", "passes": []}
    path = artifact(tmp_path / "small.onnx", conversion=changed | {"precision": "fp16"})
    root = deploy(tmp_path / "ovms", path, device="gpu")
    assert config_of(root)["small"]["plugin_config"] == {}
    assert config_of(root)["small"]["target_device"] == "GPU"


def test_openvino_computes_in_bfloat16_on_request(tmp_path):
    openvino = pytest.importorskip("openvino")
    path = artifact(tmp_path / "small.onnx")
    config = config_of(deploy(tmp_path / "ovms", path, compute="bfloat16"))["small"]
    assert config["plugin_config"] == {"INFERENCE_PRECISION_HINT": "bf16"}
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bfloat16")
    compiled = core.compile_model(
        tmp_path / "ovms" / "small" / "1" / "model.onnx", "CPU", config["plugin_config"]
    )
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16


def test_bfloat16_is_refused_for_reduced_artifacts(tmp_path):
    changed = {"exporter": "x", "opset": 20, "ir_version": 10, "lowering": "none", "passes": []}
    path = artifact(tmp_path / "small.onnx", conversion=changed | {"precision": "fp16"})
    with pytest.raises(InputError, match="--compute bfloat16 is for float32 artifacts, small is fp16"):
        deploy(tmp_path / "ovms", path, compute="bfloat16")
    assert not (tmp_path / "ovms").exists()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"model_config_list": [{}]}', '{"model_config_list": [{"config": {"name": 3}}]}'],
)
def test_an_invalid_list_of_models_is_refused_and_kept(tmp_path, text):
    root = tmp_path / "ovms"
    root.mkdir()
    (root / "config.json").write_text(text)
    with pytest.raises(InputError, match="expected a configuration of OpenVINO Model Server"):
        deploy(root, artifact(tmp_path / "small.onnx"))
    assert files_of(root) == {"config.json"}
    assert (root / "config.json").read_text() == text


@pytest.mark.parametrize("kind", ["dynamic", "fixed", "counts"])
def test_openvino_runs_the_deployed_file_as_configured(tmp_path, kind):
    openvino = pytest.importorskip("openvino")
    path = {
        "dynamic": lambda: artifact(tmp_path / "small.onnx"),
        "fixed": lambda: fixed_artifact(tmp_path / "small.onnx", 4),
        "counts": lambda: counts_artifact(tmp_path / "small.onnx"),
    }[kind]()
    root = deploy(tmp_path / "ovms", path)
    config = config_of(root)["small"]
    # As the server does: the base path is relative to the list, the highest number is the newest.
    model = root / config["base_path"] / "1" / "model.onnx"
    compiled = openvino.Core().compile_model(model, config["target_device"], config["plugin_config"])
    session = Session(path, "cpu")
    _, (inputs,) = contract_reference(session.contract)
    found = compiled({session.contract.input.name: inputs})[session.contract.output.name]
    expected = session.predict(inputs)
    np.testing.assert_allclose(
        np.moveaxis(found[..., 0] + 1j * found[..., 1], -1, 1), expected, rtol=1e-5, atol=1e-5
    )
