"""Options of the correction of positions."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["PositionModel", "PositionOptions"]

PositionModel = Literal["free", "drift", "backlash"]


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
