"""Options of a run of a network: where it runs, and how many patterns at a time."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ptychonnx.runtime.inference.predictor import DEFAULT_BATCH
from ptychonnx.runtime.inference.providers import Provider
from ptychonnx.runtime.validation import whole_number

__all__ = ["InferenceOptions"]


def _batch(value: Any) -> int | None:
    if value in ("auto", None):
        return None
    number = whole_number(value)
    if number is None or number < 1:
        raise ValueError("is neither a number above 0 nor 'auto'")
    return number


class InferenceOptions(BaseModel):
    """Where and how a network runs. A batch of None is chosen by `ptychonnx.runtime.inference.tuning.tuned`."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Inference")

    provider: Provider = Field(
        default="auto",
        description="Device, see docs/how-to/gpu.md",
        json_schema_extra={"metavar": "PROVIDER"},
    )
    batch: Annotated[int | None, BeforeValidator(_batch)] = Field(
        default=DEFAULT_BATCH,
        description="Patterns per run; auto tries and remembers the fastest",
        json_schema_extra={"metavar": "N|auto"},
    )
