"""Options of a replay: its rate, and faults on request."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ReplayOptions"]


class ReplayOptions(BaseModel):
    """How a scan is replayed."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Rate and faults")

    rate: float = Field(default=500.0, ge=1e-6, allow_inf_nan=False, description="Frames per second")
    jitter: float = Field(
        default=0.0, ge=0, le=1, description="Random part of the interval between frames, from 0 to 1"
    )
    drop: float = Field(default=0.0, ge=0, lt=1, description="Fraction of the frames that are never sent")
    duplicate: float = Field(
        default=0.0, ge=0, le=1, description="Fraction of the frames that are sent twice"
    )
    reorder: int = Field(default=1, ge=1, description="Frames are shuffled in groups of this many")
    positions_late: int = Field(
        default=0, ge=0, description="Frames by which the positions follow the frames"
    )
    positions_batch: int = Field(default=20, ge=1, description="Frames whose positions are sent together")
    samples: int = Field(default=1, ge=1, le=10_000, description="Samples of the position for each frame")
    series: int = Field(default=1, ge=0, description="Number of the series")
    seed: int = Field(default=0, ge=0, description="Seed of the faults")
