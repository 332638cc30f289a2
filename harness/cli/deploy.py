"""`ptychonnx deploy`: artifacts into the folder that an inference server reads."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.artifact.specialise import beam_of_scan, specialise
from ptychonnx.export.deploy.deploy_options import DeployOptions, KServeOptions, MLServerOptions
from ptychonnx.export.deploy.deployable import Deployable, read_artifacts
from ptychonnx.export.deploy.kserve import plan_kserve
from ptychonnx.export.deploy.mlserver import plan_mlserver
from ptychonnx.export.deploy.openvino import plan_openvino
from ptychonnx.export.deploy.triton import plan_triton
from ptychonnx.export.deploy.versioned_folder import Plan, apply
from ptychonnx.export.verification.verification_report import describe_case
from ptychonnx.harness.cli.console import output, print_lines, report_progress
from ptychonnx.harness.cli.model_options import Command, Omit, derive_options
from ptychonnx.harness.cli.shared_options import Artifacts
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.formats import read_scan

__all__ = ["app"]

_logger = logging.getLogger("ptychonnx.harness.deploy")

app = typer.Typer(
    help="Write artifacts into the **folder of an inference server**: Triton, OpenVINO Model Server, MLServer, KServe.",
    no_args_is_help=True,
)

Repository = Annotated[Path, typer.Option(help="Folder that the server reads; created if missing.")]
SpecialiseFor = Annotated[
    Path | None,
    typer.Option(
        "--specialise",
        metavar="SCAN",
        help="Scan whose beam becomes constants of general artifacts, since servers take no beam; else they are "
        "refused.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print what would be written, write nothing.")
]
# KServe serves the same folder with a Triton of its own.
TritonOptions = Annotated[DeployOptions, Omit("compute")]


@app.command("triton", cls=Command)
@derive_options
def triton(
    artifacts: Artifacts,
    repository: Repository,
    dry_run: DryRun = False,
    specialise: SpecialiseFor = None,
    *,
    options: TritonOptions,
) -> None:
    """Write a model repository of **NVIDIA Triton**, from the contract of each artifact.

    Each artifact is checked as `inspect --verify` does. The server batches artifacts with a dynamic batch, and serves
    those with a fixed batch as they are. It warms up with the reference input and publishes the contract to clients.
    Versions are written next to the repository and renamed into it, so that a server in poll mode never reads a
    partial one.

    Example: `ptychonnx deploy triton models/*.onnx --repository repo`
    """
    _write(plan_triton(repository, _read(artifacts, options, specialise), options), dry_run)


@app.command("openvino", cls=Command)
@derive_options
def openvino(
    artifacts: Artifacts,
    repository: Repository,
    dry_run: DryRun = False,
    specialise: SpecialiseFor = None,
    *,
    options: Annotated[
        DeployOptions, Omit("max_batch", "preferred_batch", "queue_delay", "accelerator", "engine_cache")
    ],
) -> None:
    """Write a folder of **OpenVINO Model Server**: numbered versions and `config.json`.

    Models that `config.json` lists already stay in it.

    Example: `ptychonnx deploy openvino models/*.onnx --repository ovms`
    """
    _write(
        plan_openvino(repository, _read(artifacts, options, specialise, engine="OpenVINO"), options), dry_run
    )


@app.command("mlserver", cls=Command)
@derive_options
def mlserver(
    artifacts: Artifacts,
    repository: Repository,
    dry_run: DryRun = False,
    specialise: SpecialiseFor = None,
    *,
    options: Annotated[
        DeployOptions, Omit("serve", "preferred_batch", "instances", "compute", "accelerator", "engine_cache")
    ],
    server: MLServerOptions,
) -> None:
    """Write a folder of **MLServer**: settings, and a small runtime that needs only onnxruntime.

    The server listens on this machine only, unless `--host` names another address. An existing `settings.json` is
    left unchanged.

    Example: `ptychonnx deploy mlserver models/*.onnx --repository served`
    """
    _write(plan_mlserver(repository, _read(artifacts, options, specialise), options, server), dry_run)


@app.command("kserve", cls=Command)
@derive_options
def kserve(
    artifacts: Artifacts,
    repository: Repository,
    dry_run: DryRun = False,
    specialise: SpecialiseFor = None,
    *,
    service: KServeOptions,
    options: TritonOptions,
) -> None:
    """Write a Triton repository, and the `InferenceService` with which **KServe** serves it.

    Copy the folder to the storage, then apply the file `inference-service.yaml` in it.

    Example: `ptychonnx deploy kserve models/*.onnx --repository repo --storage-uri s3://bucket/models`
    """
    _write(plan_kserve(repository, _read(artifacts, options, specialise), options, service), dry_run)


def _read(
    paths: list[Path], options: DeployOptions, scan_path: Path | None, engine: str = "onnxruntime"
) -> list[Deployable]:
    """Check the artifacts; options that contradict each other are refused before any artifact is run.

    An artifact that is specialised here has to agree with the general one in the engine of the server.
    """
    options.check()
    with report_progress() as progress, tempfile.TemporaryDirectory() as folder:
        if scan_path is None:
            progress.stage("Checking artifacts")
            return read_artifacts(paths)
        scan = read_scan(scan_path)
        specialised = []
        for path in paths:
            progress.stage(f"Specialising {path} for {scan.name}")
            specialised.append(Path(folder) / path.name)
            report = specialise(path, beam_of_scan(path, scan), specialised[-1], progress).report
            if any(case.engine.startswith(engine) for case in report.failures):
                worst = describe_case(report.worst_case(), report.tolerance)
                raise VerificationError(
                    f"{path}: wrong for {scan.name} in {engine}, which the server runs: {worst}"
                )
            if report.failures:
                _logger.warning("%s: %s", path, describe_case(report.worst_case(), report.tolerance))
        progress.stage("Checking artifacts")
        return [
            replace(artifact, path=path)
            for artifact, path in zip(read_artifacts(specialised), paths, strict=True)
        ]


def _write(plan: Plan, dry_run: bool) -> None:
    lines = [*plan.lines(), *plan.notes]
    if not dry_run:
        apply(plan)
    print_lines(*lines)
    if dry_run:
        output.print("Nothing was written: --dry-run.")
