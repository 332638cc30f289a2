"""Options of a reconstruction: how patches are stitched into one object, and how positions are corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.contract import Contract, Placement, Stitching, Weighting

__all__ = ["PositionModel", "PositionOptions", "ReconstructOptions"]

PositionModel = Literal["free", "drift", "backlash"]


class ReconstructOptions(BaseModel):
    """How patches are stitched. Fields that are None take the value in the contract of the artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Stitching (default: as the contract says)")

    weighting: Weighting | None = Field(default=None, description="Weights of the pixels of a patch")
    placement: Placement | None = Field(
        default=None, description="Interpolation of patches at sub-pixel positions"
    )
    synchronise: bool | None = Field(default=None, description="Rotate patches to a common global phase")
    skip_invalid: bool = Field(
        default=False,
        description="Leave out patterns whose patches are not finite",
    )
    strict: bool = Field(
        default=False,
        description="Refuse a scan that the network does not know, and an object that does not explain the patterns",
    )
    canvas_memory: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="Largest canvas in memory, in gigabytes; a larger one is kept on disk. "
        "Default: a quarter of the memory",
        json_schema_extra={"metavar": "GB"},
    )

    def resolved(self, contract: Contract) -> Stitching:
        """How the patches of a network are stitched: as these options say, else as its contract says."""
        chosen = {name: getattr(self, name) for name in ("weighting", "placement", "synchronise")}
        return contract.stitching.model_copy(
            update={name: value for name, value in chosen.items() if value is not None}
        )

    @property
    def canvas_bytes(self) -> int | None:
        """Largest canvas in memory, in bytes; None for the default."""
        return None if self.canvas_memory is None else int(1e9 * self.canvas_memory)


class PositionOptions(BaseModel):
    """Whether positions are corrected by the patches of the network, and by which model."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Positions")

    correct_positions: PositionModel | None = Field(
        default=None,
        description="Correct positions by the patches: each (free), or by a model",
    )
    position_bound: float = Field(
        default=8.0,
        gt=0,
        allow_inf_nan=False,
        description="Largest correction, in pixels; others stay",
        json_schema_extra={"metavar": "PX"},
    )
    positions_out: Path | None = Field(
        default=None,
        description="CSV file for the corrected positions and their shifts",
        json_schema_extra={"metavar": "FILE"},
    )
