"""Triton repositories: the configuration parses, and contains the contract and the warm-up."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from google.protobuf import text_format

pytest.importorskip("tritonclient.grpc")

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import Deployable, read_artifacts
from ptychonnx.export.deploy.stamped import StampedContract
from ptychonnx.export.deploy.triton import plan_triton
from ptychonnx.export.deploy.triton_config import parse_config
from ptychonnx.export.deploy.versioned_folder import apply
from ptychonnx.export.verification.reference_pair import contract_reference
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from tests.export.deployed import artifact, counts_artifact, files_of, fixed_artifact, golden, published

GRAPH = "ab" * 32


def deploy(root, *paths, **options):
    apply(plan_triton(root, read_artifacts(paths), DeployOptions(**options)))
    return root


def config_of(root, name="small"):
    return parse_config((root / name / "config.pbtxt").read_text())


def options_of(root, path, **options):
    """The configuration that options give, nothing written."""
    (model,) = plan_triton(root, read_artifacts([path]), DeployOptions(**options)).models
    return parse_config(model.files["config.pbtxt"].decode())


def assert_golden(name, config, contract):
    """The configuration without the contract, which has fields of its own time."""
    assert published(config)["ptychonnx.contract"] == contract.to_json()
    config.parameters["ptychonnx.contract"].string_value = "the contract"
    assert config == parse_config(golden(name, text_format.MessageToString(config)))


def test_the_repository_is_the_golden_one(tmp_path):
    root = deploy(tmp_path / "repo", artifact(tmp_path / "small.onnx"), preferred_batch=(8, 4), threads=2)
    assert files_of(root) == {
        "small/1/model.onnx",
        "small/README.md",
        "small/config.pbtxt",
        "small/warmup/reference_diffraction.bin",
    }
    contract = Session(root / "small" / "1" / "model.onnx", "cpu").contract
    assert_golden("triton.pbtxt", config_of(root), contract)
    page, _, document = (root / "small" / "README.md").read_text().partition("```json\n")
    assert page == golden("triton_readme.md", page)
    assert Contract.from_json(document.removesuffix("```\n"), "README.md") == contract


def test_a_client_reads_the_very_text_of_the_contract(tmp_path):
    path = artifact(tmp_path / "small.onnx")
    model = onnx.load(path)
    # As an older version wrote it: without fields that came later, which an older client would not take.
    document = json.loads(model.metadata_props[0].value)
    del document["quality"], document["conversion"]["operators_before"]
    model.metadata_props[0].value = json.dumps(document, indent=1)
    onnx.save(model, path)
    root = deploy(tmp_path / "repo", path)
    assert published(config_of(root)) == {"ptychonnx.contract": json.dumps(document, indent=1)}
    deploy(root, artifact(path, label="second"), append_version=True, serve=2)
    assert published(config_of(root))["ptychonnx.contract.1"] == json.dumps(document, indent=1)


def test_the_warm_up_is_the_reference_input(tmp_path):
    root = deploy(tmp_path / "repo", artifact(tmp_path / "small.onnx"), max_batch=8)
    _, (inputs,) = contract_reference(Session(root / "small" / "1" / "model.onnx", "cpu").contract)
    data = (root / "small" / "warmup" / "reference_diffraction.bin").read_bytes()
    np.testing.assert_array_equal(np.frombuffer(data, np.float32).reshape(1, 16, 16), inputs[0])
    config = config_of(root)
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 8]
    for warmup in config.model_warmup:
        given = warmup.inputs["diffraction"]
        # Triton reads this many bytes of the file for each request that it puts together.
        assert 4 * np.prod(given.dims) == len(data)


def test_counts_are_uint16(tmp_path):
    root = deploy(tmp_path / "repo", counts_artifact(tmp_path / "small.onnx"))
    config = config_of(root)
    types = type(config.input[0]).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    assert types[config.input[0].data_type].name == "TYPE_UINT16"
    assert types[config.output[0].data_type].name == "TYPE_FP32"
    assert (root / "small" / "warmup" / "reference_diffraction.bin").stat().st_size == 2 * 16 * 16


def test_a_fixed_batch_is_served_as_it_is(tmp_path):
    root = deploy(tmp_path / "repo", fixed_artifact(tmp_path / "small.onnx", 4))
    config = config_of(root)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [*config.input[0].dims] == [4, 1, 16, 16]
    assert [*config.output[0].dims] == [4, 16, 16, 1, 2]
    (warmup,) = config.model_warmup
    assert warmup.batch_size == 1
    assert (root / "small" / "warmup" / "reference_diffraction.bin").stat().st_size == 4 * 4 * 16 * 16


def test_a_lower_precision_is_deployed_the_same(tmp_path):
    changed = {"exporter": "x", "opset": 20, "ir_version": 10, "lowering": "none", "passes": []}
    path = artifact(tmp_path / "small.onnx", conversion=changed | {"precision": "int8"})
    assert options_of(tmp_path / "repo", path).max_batch_size == 16


def test_a_gpu_with_tensorrt_and_a_cache_for_each_graph(tmp_path):
    path = artifact(tmp_path / "small.onnx")
    artifacts = read_artifacts([path])
    contract = artifacts[0].contract.model_copy(update={"graph_sha256": GRAPH})
    stamped = StampedContract(contract, contract.to_json())
    artifacts[0] = Deployable("small", path, stamped, artifacts[0].data)
    options = DeployOptions(
        device="gpu", instances=2, accelerator="tensorrt", engine_cache="/cache/", preferred_batch=(4, 8)
    )
    (model,) = plan_triton(tmp_path / "repo", artifacts, options).models
    config = parse_config(model.files["config.pbtxt"].decode())
    assert_golden("triton_tensorrt.pbtxt", config, contract)
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert dict(accelerator.parameters) == {
        "precision_mode": "FP32",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": f"/cache/small/{GRAPH[:16]}",
        "trt_profile_min_shapes": "diffraction:1x1x16x16",
        "trt_profile_opt_shapes": "diffraction:8x1x16x16",
        "trt_profile_max_shapes": "diffraction:16x1x16x16",
    }


@pytest.mark.parametrize(
    ("precision", "accelerator", "expected"),
    [
        ("fp32", "cuda", {"use_tf32": "0"}),
        ("fp16", "cuda", {}),
        ("int8", "cuda", {}),
        ("fp16", "tensorrt", {"precision_mode": "FP16"}),
    ],
)
def test_engines_keep_the_precision_of_the_artifact(tmp_path, precision, accelerator, expected):
    changed = {"exporter": "x", "opset": 20, "ir_version": 10, "lowering": "none", "passes": []}
    path = artifact(tmp_path / "small.onnx", conversion=changed | {"precision": precision})
    config = options_of(tmp_path / "repo", path, device="gpu", accelerator=accelerator)
    (found,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert found.name == accelerator
    assert expected.items() <= dict(found.parameters).items()
    assert ("use_tf32" in found.parameters) == ("use_tf32" in expected)


def test_int8_is_refused_for_tensorrt(tmp_path):
    changed = {"exporter": "x", "opset": 20, "ir_version": 10, "lowering": "none", "passes": []}
    path = artifact(tmp_path / "small.onnx", conversion=changed | {"precision": "int8"})
    with pytest.raises(InputError, match="does not support 8-bit activations with an offset"):
        options_of(tmp_path / "repo", path, device="gpu", accelerator="tensorrt")


def test_a_cache_needs_the_hash_of_the_graph(tmp_path):
    path = artifact(tmp_path / "small.onnx")
    with pytest.raises(InputError, match="no hash of the graph"):
        options_of(tmp_path / "repo", path, device="gpu", accelerator="tensorrt", engine_cache="/cache")


def test_a_fixed_batch_has_no_profile(tmp_path):
    path = fixed_artifact(tmp_path / "small.onnx", 4)
    config = options_of(tmp_path / "repo", path, device="gpu", accelerator="tensorrt")
    (found,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert dict(found.parameters) == {"precision_mode": "FP32"}


def test_a_second_version_takes_over_and_the_oldest_goes(tmp_path):
    path = artifact(tmp_path / "small.onnx")
    root = deploy(tmp_path / "repo", path)
    artifact(path, label="retrained")
    deploy(root, path, append_version=True)
    config = config_of(root)
    assert [*config.version_policy.specific.versions] == [2]
    assert list(published(config)) == ["ptychonnx.contract"]
    assert '"label": "retrained"' in published(config)["ptychonnx.contract"]
    assert '"label": "retrained"' in (root / "small" / "README.md").read_text()

    artifact(path, label="third")
    deploy(root, path, append_version=True, prune=2, serve=2)
    config = config_of(root)
    assert [*config.version_policy.specific.versions] == [2, 3]
    assert {name for name in files_of(root) if name.endswith(".onnx")} == {
        "small/2/model.onnx",
        "small/3/model.onnx",
    }
    labels = {key: Contract.from_json(text, key).label for key, text in published(config).items()}
    assert labels == {
        "ptychonnx.contract": "third",
        "ptychonnx.contract.2": "retrained",
        "ptychonnx.contract.3": "third",
    }


def test_text_that_triton_would_not_understand_is_refused():
    with pytest.raises(InputError, match="not a Triton model configuration"):
        parse_config("max_batch: 3")
