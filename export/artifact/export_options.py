"""What may be chosen when a run is exported."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.export.graph.opset import DEFAULT_OPSET, HIGHEST_OPSET, LOWEST_OPSET
from ptychonnx.export.portability import TargetName
from ptychonnx.export.verification.verify import TOLERANCE

__all__ = ["Domain", "ExportOptions", "Precision"]

Precision = Literal["fp32", "fp16", "int8"]
Domain = Literal["amplitude", "counts"]


class ExportOptions(BaseModel):
    """Validated settings of an export."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tolerance: float = Field(
        default=TOLERANCE, gt=0, description="largest relative error of float32 against the native network"
    )
    opset: int = Field(default=DEFAULT_OPSET, ge=LOWEST_OPSET, le=HIGHEST_OPSET)
    input: Domain = Field(
        default="amplitude", description="counts: raw uint16 counts; mask and square root are in the graph"
    )
    batch: int | None = Field(default=None, gt=0, description="the only batch; None keeps it dynamic")
    precision: Precision = "fp32"
    require: tuple[TargetName, ...] = Field(
        default=(), description="targets on which every node must run, see `ptychonnx.export.portability`"
    )
