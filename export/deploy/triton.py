"""Model repository of NVIDIA Triton: `<name>/config.pbtxt` and `<name>/<version>/model.onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import Deployable
from ptychonnx.export.deploy.stamped import Stamped
from ptychonnx.export.deploy.triton_config import config_text, warmup_file
from ptychonnx.export.deploy.versioned_folder import Plan
from ptychonnx.export.deploy.versions import plan_model, plan_versions

__all__ = ["plan_triton"]

_README = (
    "Triton loads and serves the versions that `config.pbtxt` lists under `version_policy`, and no others. It warms up "
    "with the reference input of the contract before it is ready. The model configuration contains the contract, in "
    "the parameter `ptychonnx.contract`."
)


def plan_triton(root: Path, artifacts: Sequence[Deployable], options: DeployOptions) -> Plan:
    """Plan a deployment to a model repository.

    The configuration is replaced last, and lists the new version. For the server, version, contract and engine cache
    therefore change in a single rename. The warm-up data, which are replaced before, never change their shape.

    Raises InputError if a model exists and `append_version` is not set, options are incompatible, or tritonclient is
    missing.
    """
    options.check()
    models = []
    for artifact in artifacts:
        versions = plan_versions(root, artifact, options)
        config = config_text(artifact.name, versions.served(options.serve), options)
        files = {**_warm_up(artifact.stamped), "config.pbtxt": config.encode()}
        models.append(plan_model(artifact, versions, _README, files=files))
    return Plan(root, tuple(models))


def _warm_up(stamped: Stamped) -> dict[str, bytes]:
    """One file per input: the first reference input, or the whole batch if the server does not batch."""
    interface = stamped.interface
    return {
        f"warmup/{warmup_file(tensor.name)}": (array[:1] if interface.is_dynamic else array).tobytes()
        for tensor, array in zip(interface.inputs, stamped.reference, strict=True)
    }
