"""Options of a reconstruction of many scans, or of one in parts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["DivisionOptions"]


class DivisionOptions(BaseModel):
    """How the work of a reconstruction is divided."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        title="Many scans, and large ones in parts",
        json_schema_extra={
            "help_option": "--help-many",
            "help_subject": "for many scans, and large ones",
        },
    )

    watch: bool = Field(
        default=False,
        description="Take each scan that appears in the one folder named instead of scans, when it is complete, until "
        "Ctrl-C",
    )
    executor: str | None = Field(
        default=None,
        description="Workers for many scans, or for the parts of one: local[:WORKERS], dask[:WORKERS], "
        "dask://HOST:PORT, or a YAML file for workers that Slurm starts",
        json_schema_extra={"metavar": "ENGINE"},
    )
    shards: int | None = Field(
        default=None,
        ge=1,
        description="Parts of one scan with --executor. Default: one per worker",
        json_schema_extra={"metavar": "N"},
    )
    shard: str | None = Field(
        default=None,
        description="Reconstruct the I-th of N parts of the scan, and write its sums for `ptychonnx merge`",
        json_schema_extra={"metavar": "I/N"},
    )
