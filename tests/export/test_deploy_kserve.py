"""KServe: the service over a Triton repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

pytest.importorskip("tritonclient.grpc")

from ptychonnx.export.deploy.deploy_options import DeployOptions, KServeOptions
from ptychonnx.export.deploy.deployable import read_artifacts
from ptychonnx.export.deploy.kserve import plan_kserve
from ptychonnx.export.deploy.versioned_folder import apply
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.validation import checked
from tests.export.deployed import artifact, files_of, golden


def deploy(root, path, service=None, **options):
    chosen = KServeOptions(storage_uri="s3://bucket/models", **(service or {}))
    apply(plan_kserve(root, read_artifacts([path]), DeployOptions(**options), chosen))
    return (root / "inference-service.yaml").read_text()


def test_the_service_is_the_golden_one(tmp_path):
    root = tmp_path / "repo"
    text = deploy(root, artifact(tmp_path / "small.onnx"), {"namespace": "beamline"}, instances=2, threads=3)
    assert text == golden("kserve.yaml", text)
    assert files_of(root) == {
        "inference-service.yaml",
        "small/1/model.onnx",
        "small/README.md",
        "small/config.pbtxt",
        "small/warmup/reference_diffraction.bin",
    }


def test_the_text_is_the_document(tmp_path):
    service = {"protocol": "grpc-v2", "service": "on", "namespace": "123"}
    found = yaml.safe_load(
        deploy(tmp_path / "repo", artifact(tmp_path / "small.onnx"), service, device="gpu")
    )
    # Words and numbers that YAML would take for something else are names here.
    assert found["metadata"] == {"name": "on", "namespace": "123"}
    assert found["spec"]["predictor"] == {
        "minReplicas": 1,
        "model": {
            "modelFormat": {"name": "onnx"},
            "runtime": "kserve-tritonserver",
            "protocolVersion": "grpc-v2",
            "storageUri": "s3://bucket/models",
            "resources": {
                "requests": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"},
                "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"},
            },
            "ports": [{"name": "h2c", "protocol": "TCP", "containerPort": 9000}],
        },
    }


@pytest.mark.parametrize(
    "change",
    [
        {"storage_uri": "models"},
        {"storage_uri": "s3://a b"},
        {"storage_uri": "s3://a\nkind: Pod"},
        {"namespace": "Upper"},
        {"namespace": "-a"},
        {"service": "a" * 64},
        {"runtime": "a/b"},
        {"protocol": "v1"},
    ],
)
def test_names_that_kubernetes_rejects_are_refused(change):
    with pytest.raises(InputError, match=f"setting {next(iter(change))}"):
        checked(KServeOptions, {"storage_uri": "s3://bucket/models"} | change)


@pytest.mark.kserve
@pytest.mark.parametrize("protocol", ["v2", "grpc-v2"])
def test_kserve_knows_every_field(tmp_path, protocol):
    home = Path(os.environ.get("PTYCHONNX_KSERVE", ".kserve"))
    if not (home / "installed").is_file():
        pytest.skip(f"nothing is installed in {home}, `make test-kserve` does it")
    text = deploy(tmp_path / "repo", artifact(tmp_path / "small.onnx"), {"protocol": protocol}, device="gpu")
    script = Path(__file__).with_name("kserve_fields.py")

    def unknown(document: str) -> str:
        return subprocess.run(
            [home / "bin/python", script], input=document, text=True, capture_output=True, check=True
        ).stdout

    assert unknown(text) == ""
    assert unknown(text.replace("storageUri:", "storageURI:")) == "service.spec.predictor.model.storageURI"
