"""`ptychonnx deploy`: artifacts into the folder that an inference server reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ptychonnx.export.deploy.deploy_options import (
    Accelerator,
    Compute,
    DeployOptions,
    Device,
    KServeOptions,
    MLServerOptions,
)
from ptychonnx.export.deploy.deployable import Deployable, read_artifacts
from ptychonnx.export.deploy.kserve import plan_kserve
from ptychonnx.export.deploy.mlserver import plan_mlserver
from ptychonnx.export.deploy.openvino import plan_openvino
from ptychonnx.export.deploy.triton import plan_triton
from ptychonnx.export.deploy.versioned_folder import Plan, apply
from ptychonnx.harness.cli.console import errors, output
from ptychonnx.harness.cli.shared_options import with_options
from ptychonnx.runtime.validation import checked

__all__ = ["app"]

app = typer.Typer(
    help="Write artifacts into the **folder of an inference server**: Triton, OpenVINO Model Server, MLServer, KServe.",
    no_args_is_help=True,
)

_OPTIONS = DeployOptions()
_SERVER = MLServerOptions()

Artifacts = Annotated[
    list[Path], typer.Argument(help="ONNX artifacts; a file's name becomes its model's name.")
]
Repository = Annotated[Path, typer.Option(help="Folder that the server reads; made if it is not there.")]
Append = Annotated[
    bool, typer.Option("--append-version", help="Add a version to models that are there already.")
]
Prune = Annotated[
    int | None,
    typer.Option(help="With --append-version: keep so many of the newest versions, remove the rest."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print what would be written, write nothing.")
]
Serve = Annotated[int, typer.Option(help="How many of the newest versions answer.")]
MaxBatch = Annotated[int, typer.Option(help="Largest batch that the server puts together.")]
PreferredBatch = Annotated[
    list[int] | None, typer.Option(help="Batch that the server waits for first; may be given several times.")
]
QueueDelay = Annotated[int, typer.Option(help="Longest wait for a fuller batch, in microseconds.")]
DeviceChoice = Annotated[Device, typer.Option(help="Where the model runs.")]
Instances = Annotated[int, typer.Option(help="Copies of the model that run side by side.")]
Threads = Annotated[
    int | None, typer.Option(help="Threads of one copy on a CPU; the engine's own choice if not given.")
]
AcceleratorChoice = Annotated[
    Accelerator | None, typer.Option(help="With --device gpu: TensorRT, or settings of the CUDA provider.")
]
EngineCache = Annotated[
    str | None, typer.Option(help="With TensorRT: folder on the server that keeps built engines.")
]


def _triton_options(
    append_version: Append = False,
    prune: Prune = None,
    serve: Serve = _OPTIONS.serve,
    max_batch: MaxBatch = _OPTIONS.max_batch,
    preferred_batch: PreferredBatch = None,
    queue_delay: QueueDelay = _OPTIONS.queue_delay,
    device: DeviceChoice = _OPTIONS.device,
    instances: Instances = _OPTIONS.instances,
    threads: Threads = None,
    accelerator: AcceleratorChoice = None,
    engine_cache: EngineCache = None,
) -> DeployOptions:
    return checked(DeployOptions, dict(locals()) | {"preferred_batch": tuple(preferred_batch or ())})


# KServe serves the same folder by a Triton of its own.
_with_triton_options = with_options("options", _triton_options)


@app.command("triton")
@_with_triton_options
def triton(
    artifacts: Artifacts,
    repository: Repository,
    dry_run: DryRun = False,
    *,
    options: DeployOptions,
) -> None:
    """A model repository of **NVIDIA Triton**, from the contract of each artifact.

    Each artifact is checked as `inspect --verify` does. A dynamic one is batched by the server, one of a fixed batch
    is served as it is. The server warms up with the reference input and gives the contract to clients. Versions
    are written beside the repository and renamed into it: a server in poll mode never sees half of one.

    Example: `ptychonnx deploy triton models/*.onnx --repository repo`
    """
    _carry_out(plan_triton(repository, _read(artifacts, options), options), dry_run)


@app.command("openvino")
def openvino(
    artifacts: Artifacts,
    repository: Repository,
    append_version: Append = False,
    prune: Prune = None,
    dry_run: DryRun = False,
    serve: Serve = _OPTIONS.serve,
    device: DeviceChoice = _OPTIONS.device,
    instances: Instances = _OPTIONS.instances,
    threads: Threads = None,
    compute: Annotated[
        Compute,
        typer.Option(help="What float32 artifacts are computed in; `bench` says which bear bfloat16."),
    ] = _OPTIONS.compute,
) -> None:
    """A folder of **OpenVINO Model Server**: numbered versions and `config.json`.

    Models that `config.json` already lists stay in it. float32 artifacts are computed in float32, unless `--compute`
    says otherwise.

    Example: `ptychonnx deploy openvino models/*.onnx --repository ovms`
    """
    options = checked(
        DeployOptions,
        {
            "append_version": append_version,
            "prune": prune,
            "serve": serve,
            "device": device,
            "instances": instances,
            "threads": threads,
            "compute": compute,
        },
    )
    _carry_out(plan_openvino(repository, _read(artifacts, options), options), dry_run)


@app.command("mlserver")
def mlserver(
    artifacts: Artifacts,
    repository: Repository,
    append_version: Append = False,
    prune: Prune = None,
    dry_run: DryRun = False,
    max_batch: MaxBatch = _OPTIONS.max_batch,
    queue_delay: QueueDelay = _OPTIONS.queue_delay,
    device: DeviceChoice = _OPTIONS.device,
    threads: Threads = None,
    host: Annotated[str, typer.Option(help="Address that the server listens on.")] = _SERVER.host,
    http_port: Annotated[int, typer.Option(help="Port of the REST interface.")] = _SERVER.http_port,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC interface.")] = _SERVER.grpc_port,
    metrics_port: Annotated[int, typer.Option(help="Port of the metrics.")] = _SERVER.metrics_port,
) -> None:
    """A folder of **MLServer**: settings, and a small runtime that needs only onnxruntime.

    The server listens on this machine only, unless `--host` says otherwise. A `settings.json` that is there already
    stays as it is.

    Example: `ptychonnx deploy mlserver models/*.onnx --repository served`
    """
    options = checked(
        DeployOptions,
        {
            "append_version": append_version,
            "prune": prune,
            "max_batch": max_batch,
            "queue_delay": queue_delay,
            "device": device,
            "threads": threads,
        },
    )
    ports = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    server = checked(MLServerOptions, {"host": host, **ports})
    _carry_out(plan_mlserver(repository, _read(artifacts, options), options, server), dry_run)


@app.command("kserve")
@_with_triton_options
def kserve(
    artifacts: Artifacts,
    repository: Repository,
    storage_uri: Annotated[
        str, typer.Option(help="Where the repository will be copied to, such as s3://bucket/models.")
    ],
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace of the service.")] = "default",
    service: Annotated[str, typer.Option(help="Name of the service.")] = "ptychonnx",
    runtime: Annotated[
        str, typer.Option(help="ServingRuntime that reads Triton repositories.")
    ] = "kserve-tritonserver",
    protocol: Annotated[
        Literal["v2", "grpc-v2"], typer.Option(help="Open Inference Protocol over REST or gRPC.")
    ] = "v2",
    dry_run: DryRun = False,
    *,
    options: DeployOptions,
) -> None:
    """A Triton repository and the `InferenceService` by which **KServe** serves it.

    Copy the folder to the storage, then apply `inference-service.yaml`, which lies in it.

    Example: `ptychonnx deploy kserve models/*.onnx --repository repo --storage-uri s3://bucket/models`
    """
    chosen = checked(
        KServeOptions,
        {
            "storage_uri": storage_uri,
            "namespace": namespace,
            "service": service,
            "runtime": runtime,
            "protocol": protocol,
        },
    )
    _carry_out(plan_kserve(repository, _read(artifacts, options), options, chosen), dry_run)


def _read(paths: list[Path], options: DeployOptions) -> list[Deployable]:
    """Options that do not go together are refused before any artifact is run."""
    options.check()
    with errors.status("Checking artifacts"):
        return read_artifacts(paths)


def _carry_out(plan: Plan, dry_run: bool) -> None:
    lines = [*plan.lines(), *plan.notes]
    if not dry_run:
        apply(plan)
    for line in lines:
        output.print(line, soft_wrap=True, markup=False)
    if dry_run:
        output.print("Nothing was written: --dry-run.")
