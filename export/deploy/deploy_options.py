"""Options of a deployment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ptychonnx.runtime.errors import InputError

__all__ = ["Accelerator", "Compute", "DeployOptions", "Device", "KServeOptions", "MLServerOptions"]

Device = Literal["cpu", "gpu"]
Accelerator = Literal["tensorrt", "cuda"]
Compute = Literal["float32", "bfloat16"]

_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


def _absolute(path: str | None) -> str | None:
    if path is not None and (not path.startswith("/") or "\n" in path):
        raise ValueError("expected an absolute path on the server")
    return path


class DeployOptions(BaseModel):
    """Validated settings of a deployment, the same for all artifacts of one call."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Serving")

    append_version: bool = Field(
        default=False, description="Add a version to models that exist in the repository"
    )
    prune: int | None = Field(
        default=None, ge=1, description="With --append-version: keep only this many versions of each model"
    )
    serve: int = Field(default=1, ge=1, description="Number of newest versions that answer requests")
    max_batch: int = Field(default=16, ge=1, le=4096, description="Largest batch that the server forms")
    preferred_batch: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="Batch that the server prefers to form; may be given several times"
    )
    queue_delay: int = Field(
        default=500, ge=0, le=10_000_000, description="Longest wait for a fuller batch, in microseconds"
    )
    device: Device = Field(default="cpu", description="Device on which the model runs")
    instances: int = Field(default=1, ge=1, le=256, description="Copies of the model that run in parallel")
    threads: int | None = Field(
        default=None, ge=1, description="Threads of one copy on a CPU; chosen by the engine if not set"
    )
    compute: Compute = Field(
        default="float32",
        description="Arithmetic of float32 artifacts; `ptychonnx bench` judges bfloat16 on a scan",
    )
    accelerator: Accelerator | None = Field(
        default=None, description="With --device gpu: TensorRT, or tuned settings of the CUDA provider"
    )
    engine_cache: Annotated[str | None, AfterValidator(_absolute)] = Field(
        default=None, description="With TensorRT: folder on the server that keeps built engines"
    )

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises InputError; the message names the options of the command line.
        """
        too_large = [size for size in self.preferred_batch if size > self.max_batch]
        if too_large:
            raise InputError(f"--preferred-batch {too_large[0]} is larger than --max-batch {self.max_batch}")
        if self.accelerator is not None and self.device != "gpu":
            raise InputError(f"--accelerator {self.accelerator} runs on a GPU, expected --device gpu with it")
        if self.engine_cache is not None and self.accelerator != "tensorrt":
            raise InputError("--engine-cache is for TensorRT, expected --accelerator tensorrt with it")
        if self.engine_cache is not None and self.serve > 1:
            # A cached engine is identified by names in the graph, which are the same for two trainings of one network.
            raise InputError("--engine-cache holds the engines of one version, expected --serve 1 with it")
        if self.threads is not None and self.device == "gpu":
            raise InputError("--threads is for CPUs, expected --device cpu with it")
        if self.prune is not None and not self.append_version:
            raise InputError("--prune removes old versions of a model, expected --append-version with it")
        if self.prune is not None and self.prune < self.serve:
            raise InputError(f"--prune {self.prune} keeps fewer versions than --serve {self.serve} needs")


class KServeOptions(BaseModel):
    """Settings of the InferenceService."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="KServe")

    storage_uri: str = Field(
        pattern=r"^[a-z][a-z0-9+.-]*://\S+$",
        description="Storage that the repository will be copied to, such as s3://bucket/models",
    )
    namespace: str = Field(
        default="default", pattern=_LABEL, description="Kubernetes namespace of the service"
    )
    service: str = Field(default="ptychonnx", pattern=_LABEL, description="Name of the service")
    runtime: str = Field(
        default="kserve-tritonserver",
        pattern=_LABEL,
        description="ServingRuntime that reads Triton repositories",
    )
    protocol: Literal["v2", "grpc-v2"] = Field(
        default="v2", description="Open Inference Protocol over REST (v2) or gRPC (grpc-v2)"
    )


class MLServerOptions(BaseModel):
    """Settings of the server that `settings.json` starts."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="MLServer")

    host: str = Field(
        default="127.0.0.1", pattern=r"^[0-9A-Za-z.:_-]+$", description="Address that the server listens on"
    )
    http_port: int = Field(default=8080, ge=1, le=65535, description="Port of the REST interface")
    grpc_port: int = Field(default=8081, ge=1, le=65535, description="Port of the gRPC interface")
    metrics_port: int = Field(default=8082, ge=1, le=65535, description="Port of the metrics")
