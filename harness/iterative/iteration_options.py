"""Options of iterative reconstructions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ptychonnx.harness.iterative.algorithm import MOST_SMOOTHING, Algorithm
from ptychonnx.harness.iterative.iterations import Epochs
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.validation import whole_number

__all__ = ["IterationOptions"]


def _epochs(value: Any) -> Epochs | None:
    if value in ("auto", None):
        return value
    number = whole_number(value)
    if number is None or number < 0:
        raise ValueError("is neither a number from 0 nor 'auto'")
    return number


class IterationOptions(BaseModel):
    """How many epochs of mPIE run, from which start, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Iterations (mPIE)")

    iterations: Annotated[Epochs, BeforeValidator(_epochs)] = Field(
        default=0,
        description="Epochs from vacuum, without a network",
        json_schema_extra={"metavar": "K|auto"},
    )
    refine: Annotated[Epochs | None, BeforeValidator(_epochs)] = Field(
        default=None,
        description="Epochs after each network. Default: 0, or auto if none is named",
        json_schema_extra={"metavar": "K|auto"},
    )
    refine_probe: bool = Field(default=False, description="Update the probe in these epochs too")
    alpha: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Smaller is faster and noisier; 1: ePIE. Default: by photons",
        json_schema_extra={"metavar": "A"},
    )
    momentum: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Momentum; 0 is rPIE. Default: 0.8; 0 with --refine-probe",
        json_schema_extra={"metavar": "M"},
    )
    smoothing: float | None = Field(
        default=None,
        ge=0,
        le=MOST_SMOOTHING,
        description="Weight of total variation. Default: by trials if photons are few",
        json_schema_extra={"metavar": "W"},
    )

    def check_used(self, *, run: bool) -> None:
        """Refuse settings of epochs if none run.

        Raises InputError.
        """
        for option, is_set in (
            ("--refine-probe", self.refine_probe),
            ("--alpha", self.alpha is not None),
            ("--momentum", self.momentum is not None),
            ("--smoothing", self.smoothing is not None),
        ):
            if is_set and not run:
                raise InputError(
                    f"{option}: there are no iterations, expected --refine K or --iterations K with it"
                )

    @property
    def algorithm(self) -> Algorithm:
        """What an epoch does."""
        return Algorithm(self.alpha, self.momentum, refine_probe=self.refine_probe, smoothing=self.smoothing)
