"""Folder of MLServer: `settings.json`, and `<name>/<version>/` with the model, its settings and its runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptychonnx.export.deploy.deploy_options import DeployOptions, MLServerOptions
from ptychonnx.export.deploy.deployable import Deployable
from ptychonnx.export.deploy.interface import TYPES
from ptychonnx.export.deploy.versioned_folder import Plan
from ptychonnx.export.deploy.versions import MODEL_FILE, plan_model, plan_versions

__all__ = ["plan_mlserver"]

_RUNTIME = Path(__file__).with_name("ptychonnx_mlserver.py")
# A batch of 16 patches of 128 x 128 pixels already fills half of the default of gRPC, 4 MB.
_MAX_MESSAGE_BYTES = 2**27
_README = (
    "MLServer loads all versions when it starts; it does not watch the folder. A request without a version goes to the "
    "newest one. The metadata of the model contain the contract, in the parameter `ptychonnx.contract` (of a "
    "module: its description, in `ptychonnx.module`)."
)


def plan_mlserver(
    root: Path, artifacts: Sequence[Deployable], options: DeployOptions, server: MLServerOptions
) -> Plan:
    """Plan a deployment; an existing `settings.json` is left unchanged.

    Raises InputError if a model exists and `append_version` is not set.
    """
    options.check()
    models = []
    for artifact in artifacts:
        versions = plan_versions(root, artifact, options)
        version_files = {
            _RUNTIME.name: _RUNTIME.read_bytes(),
            "model-settings.json": _json(_model_settings(artifact, versions.new, options)),
        }
        models.append(plan_model(artifact, versions, _README, version_files=version_files))
    path = root / "settings.json"
    if path.exists():
        return Plan(root, tuple(models), notes=(f"keep    {path}, which exists already",))
    return Plan(root, tuple(models), {path.name: _json(_server_settings(server))})


def _server_settings(server: MLServerOptions) -> dict[str, Any]:
    return {
        "debug": False,
        "host": server.host,
        "http_port": server.http_port,
        "grpc_port": server.grpc_port,
        "metrics_port": server.metrics_port,
        "grpc_max_message_length": _MAX_MESSAGE_BYTES,
        # The runtime answers in threads of the server process. Workers do not start with mlserver 1.7.1 and
        # uvloop 0.23, which it installs.
        "parallel_workers": 0,
    }


def _model_settings(artifact: Deployable, version: int, options: DeployOptions) -> dict[str, Any]:
    interface = artifact.interface
    extra: dict[str, Any] = {"device": options.device}
    if options.threads is not None:
        extra["threads"] = options.threads
    settings: dict[str, Any] = {
        "name": artifact.name,
        "implementation": f"{_RUNTIME.stem}.OnnxModel",
        "platform": "onnxruntime_onnx",
        **{
            kind: [
                {
                    "name": tensor.name,
                    "datatype": TYPES[tensor.dtype],
                    "shape": [*interface.full_shape(tensor)],
                }
                for tensor in tensors
            ]
            for kind, tensors in (("inputs", interface.inputs), ("outputs", interface.outputs))
        },
        "parameters": {"uri": f"./{MODEL_FILE}", "version": str(version), "extra": extra},
    }
    if interface.is_dynamic and options.max_batch > 1:
        settings |= {"max_batch_size": options.max_batch, "max_batch_time": options.queue_delay / 1e6}
    return settings


def _json(document: dict[str, Any]) -> bytes:
    return f"{json.dumps(document, indent=2)}\n".encode()
