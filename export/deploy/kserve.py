"""InferenceService of KServe for a Triton model repository that is copied to a storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ptychonnx.export.deploy.deploy_options import DeployOptions, KServeOptions
from ptychonnx.export.deploy.deployable import Deployable
from ptychonnx.export.deploy.triton import plan_triton
from ptychonnx.export.deploy.versioned_folder import Plan

__all__ = ["SERVICE_FILE", "plan_kserve"]

SERVICE_FILE = "inference-service.yaml"
_MEMORY = "2Gi"


def plan_kserve(
    root: Path, artifacts: Sequence[Deployable], options: DeployOptions, service: KServeOptions
) -> Plan:
    """Plan a Triton model repository with the YAML file of the service next to its models.

    Raises InputError as for `plan_triton`.
    """
    plan = plan_triton(root, artifacts, options)
    document = _service(options, service)
    return replace(plan, files={SERVICE_FILE: yaml.safe_dump(document, sort_keys=False).encode()})


def _service(options: DeployOptions, service: KServeOptions) -> dict[str, Any]:
    requests = {"cpu": str(options.instances * (options.threads or 1)), "memory": _MEMORY}
    limits = {"memory": _MEMORY}
    if options.device == "gpu":
        requests["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = "1"
    model: dict[str, Any] = {
        "modelFormat": {"name": "onnx"},
        "runtime": service.runtime,
        "protocolVersion": service.protocol,
        "storageUri": service.storage_uri,
        "resources": {"requests": requests, "limits": limits},
    }
    if service.protocol == "grpc-v2":
        # The name makes the ingress use HTTP/2.
        model["ports"] = [{"name": "h2c", "protocol": "TCP", "containerPort": 9000}]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": service.service, "namespace": service.namespace},
        "spec": {"predictor": {"minReplicas": 1, "model": model}},
    }
