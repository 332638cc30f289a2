"""Options of a live reconstruction."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LiveOptions"]


class LiveOptions(BaseModel):
    """How streams are received and joined."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Streams")

    buffer: float = Field(
        default=0.5,
        gt=0,
        allow_inf_nan=False,
        description="High-water mark: frames that wait for the network, in gigabytes; beyond it the detector "
        "is held back",
        json_schema_extra={"metavar": "GB"},
    )
    silence: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest silence of the detector, before and during a scan, in seconds",
        json_schema_extra={"metavar": "SECONDS"},
    )
    positions_timeout: float = Field(
        default=10.0,
        ge=0,
        allow_inf_nan=False,
        description="How long positions may come after the last frame, in seconds",
        json_schema_extra={"metavar": "SECONDS"},
    )
    linger: float = Field(
        default=0.2,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="How long frames wait for a full batch, in seconds; at least as long as a batch takes",
        json_schema_extra={"metavar": "SECONDS"},
    )
    interpolate: bool = Field(
        default=False,
        description="Interpolate missing positions between those of the frames before and after",
        json_schema_extra={"flag": "--interpolate-positions"},
    )
    series: int = Field(
        default=1,
        ge=1,
        description="Number of series to reconstruct; with several, each file has the number of its series in its name",
    )
