"""Options of an export, of a run or of any torch module."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.export.graph.opset import DEFAULT_OPSET, HIGHEST_OPSET, LOWEST_OPSET
from ptychonnx.export.portability import TargetName
from ptychonnx.export.verification.verify import TOLERANCE

__all__ = ["Domain", "ExportOptions", "ModuleOptions", "Precision"]

Precision = Literal["fp32", "fp16", "int8"]
Domain = Literal["amplitude", "counts"]


class _ArtifactOptions(BaseModel):
    """Settings of every artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Artifact")

    tolerance: float = Field(
        default=TOLERANCE,
        gt=0,
        description="Largest relative error of float32 against the network in its framework",
    )
    opset: int = Field(
        default=DEFAULT_OPSET,
        ge=LOWEST_OPSET,
        le=HIGHEST_OPSET,
        description=f"Version of the ONNX operators, {LOWEST_OPSET} to {HIGHEST_OPSET}",
    )
    batch: int | None = Field(
        default=None, gt=0, description="Fixed batch, for CUDA graphs and TensorRT; dynamic if not set"
    )
    require: tuple[TargetName, ...] = Field(
        default=(),
        description="Refuse a graph with a node that this target lacks: cpu, cuda, tensorrt or openvino",
        json_schema_extra={"metavar": "TARGET"},
    )


class ExportOptions(_ArtifactOptions):
    """Settings of the export of a run."""

    input: Domain = Field(
        default="amplitude",
        description="Input of the graph: amplitudes, or raw uint16 counts with mask and square root in the graph",
    )
    precision: Precision = Field(
        default="fp32",
        description="fp16 for GPUs or int8 for CPUs is accepted only if the reconstruction stays as good",
    )
    general: bool = Field(
        default=False,
        description="Make probe, mask and scale inputs with defaults, so that the artifact fits other beams",
    )
    modes: int | None = Field(
        default=None,
        gt=0,
        le=16,
        description="With --general: the only number of probe modes that the artifact takes. Default: any number, or "
        "with --batch as many as the training probe has",
    )

    @property
    def any_modes(self) -> bool:
        """Whether the probe may have any number of modes: not where every size must be fixed, as for CUDA graphs."""
        return self.general and self.modes is None and self.batch is None


class ModuleOptions(_ArtifactOptions):
    """Settings of the export of a torch module."""

    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the random inputs of verification")
    precision: Literal["fp32", "fp16"] = Field(
        default="fp32",
        description="fp16 computes convolutions and matrix products in half precision, for GPUs",
    )
    precision_tolerance: float = Field(
        default=1e-2,
        gt=0,
        description="Largest error of fp16, as a fraction of the largest output in float32",
    )
