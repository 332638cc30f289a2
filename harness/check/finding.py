"""One property of a scan, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Finding", "FindingVerdict"]

FindingVerdict = Literal["good", "doubtful", "wrong", "unknown"]


class Finding(BaseModel):
    """What was measured of one property of a scan, and what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str
    verdict: FindingVerdict = Field(description="unknown: the file does not hold what it takes to tell")
    text: str = Field(description="one line, with what to do unless all is well")
    values: Mapping[str, Any] = Field(default_factory=dict, description="figures by name")
