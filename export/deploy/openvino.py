"""Folder of OpenVINO Model Server: `<name>/<version>/model.onnx`, and `config.json` with the list of models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import Deployable
from ptychonnx.export.deploy.versioned_folder import Plan
from ptychonnx.export.deploy.versions import plan_model, plan_versions
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.paths import read_text

__all__ = ["CONFIG_FILE", "plan_openvino"]

CONFIG_FILE = "config.json"
_LIST = "model_config_list"
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_README = (
    "OpenVINO Model Server watches the folder and serves the newest versions; `config.json` sets their number. It does "
    "not publish the contract: read it here, or in the metadata of `model.onnx`."
)


def plan_openvino(root: Path, artifacts: Sequence[Deployable], options: DeployOptions) -> Plan:
    """Plan a deployment; other models in `config.json` are left unchanged.

    Raises InputError if bfloat16 is requested for an artifact that is not float32, a model exists and `append_version`
    is not set, or an existing `config.json` is not understood.
    """
    options.check()
    models = [plan_model(artifact, plan_versions(root, artifact, options), _README) for artifact in artifacts]
    document = _document(root / CONFIG_FILE)
    entries = {entry["config"]["name"]: entry for entry in document[_LIST]}
    entries |= {artifact.name: {"config": _entry(artifact, options)} for artifact in artifacts}
    document[_LIST] = [entries[name] for name in sorted(entries)]
    return Plan(root, tuple(models), {CONFIG_FILE: f"{json.dumps(document, indent=2)}\n".encode()})


def _entry(artifact: Deployable, options: DeployOptions) -> dict[str, Any]:
    plugin = {}
    precision = artifact.stamped.precision
    if precision == "fp32":
        # By default, GPUs and some Xeons compute in 16 bits, for which parity was not measured.
        plugin["INFERENCE_PRECISION_HINT"] = _HINTS[options.compute]
    elif options.compute == "bfloat16":
        raise InputError(f"--compute bfloat16 is for float32 artifacts, {artifact.name} is {precision}")
    if options.instances > 1:
        plugin["NUM_STREAMS"] = str(options.instances)
    if options.threads is not None:
        plugin["INFERENCE_NUM_THREADS"] = str(options.threads * options.instances)
    return {
        "name": artifact.name,
        # Relative to config.json, so that the folder can be mounted anywhere.
        "base_path": artifact.name,
        "target_device": options.device.upper(),
        "model_version_policy": {"latest": {"num_versions": options.serve}},
        "plugin_config": plugin,
    }


def _document(path: Path) -> dict[str, Any]:
    """The existing configuration, or an empty one."""
    if not path.exists():
        return {_LIST: []}
    try:
        document = json.loads(read_text(path))
        for entry in document[_LIST]:
            entry["config"]["name"].lower()
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise InputError(
            f"{path}: expected a configuration of OpenVINO Model Server with {_LIST} ({type(error).__name__}: {error})"
        ) from error
    return document
