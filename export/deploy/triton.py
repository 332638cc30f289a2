"""A model repository of NVIDIA Triton: `<name>/config.pbtxt` and `<name>/<version>/model.onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import Deployable
from ptychonnx.export.deploy.readme import readme
from ptychonnx.export.deploy.triton_config import config_text, warmup_file
from ptychonnx.export.deploy.versioned_folder import ModelPlan, Plan
from ptychonnx.export.deploy.versions import MODEL_FILE, plan_versions
from ptychonnx.export.verification.reference_pair import contract_reference
from ptychonnx.runtime.contract import Contract

__all__ = ["plan_triton"]

_README = (
    "Triton serves the versions that `config.pbtxt` names under `version_policy`; a version that it does not name is "
    "not loaded. It warms up with the reference input of the contract before it is ready, and gives the contract to "
    "clients with its configuration, in the parameter `ptychonnx.contract`."
)


def plan_triton(root: Path, artifacts: Sequence[Deployable], options: DeployOptions) -> Plan:
    """What a deployment changes in a model repository.

    The configuration comes last: it names the new version, so that version, contract and engine cache change for
    the server in one rename. The warm-up before it has another content at most, never another shape.

    Raises
    ------
    InputError
        If a model exists and `append_version` is not set, options do not fit, or tritonclient is missing.
    """
    options.check()
    return Plan(root, tuple(_plan_model(root, artifact, options) for artifact in artifacts))


def _plan_model(root: Path, artifact: Deployable, options: DeployOptions) -> ModelPlan:
    versions = plan_versions(root, artifact, options)
    config = config_text(artifact.name, versions.served(options.serve), options)
    return ModelPlan(
        name=artifact.name,
        version=versions.new,
        version_files={MODEL_FILE: artifact.data},
        files={
            **_warm_up(artifact.contract),
            "README.md": readme(artifact, versions.new, _README),
            "config.pbtxt": config.encode(),
        },
        remove=versions.removed,
    )


def _warm_up(contract: Contract) -> dict[str, bytes]:
    """A file for each input: the first of the reference, or the whole batch where only one fits."""
    _, values = contract_reference(contract)
    return {
        f"warmup/{warmup_file(tensor.name)}": (each[:1] if contract.batch is None else each).tobytes()
        for tensor, each in zip(contract.inputs, values, strict=True)
    }
