"""Options of an evaluation: how reconstructions are compared with the reference."""

from __future__ import annotations

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

__all__ = ["EvaluateOptions"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", title="Comparison"))
class EvaluateOptions:
    """What is removed before a reconstruction is compared, and which metrics are added."""

    plane: bool = Field(
        default=False,
        description="Remove a phase ramp before comparing",
        json_schema_extra={"flag": "--plane/--no-plane"},
    )
    register: bool = Field(
        default=False,
        description="Remove a sub-pixel shift before comparing",
        json_schema_extra={"flag": "--register/--no-register"},
    )
    ptychopinn: bool = Field(
        default=False,
        description="Also report the metrics as PtychoPINN defines them",
        json_schema_extra={"flag": "--ptychopinn/--no-ptychopinn"},
    )
    halves: bool = Field(
        default=False,
        description="Also reconstruct two interleaved halves of the scan, and say up to which detail they agree",
        json_schema_extra={"flag": "--halves/--no-halves"},
    )
