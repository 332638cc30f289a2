"""Intervals from the spread under symmetries, calibrated on simulated scans.

A spread alone is no standard deviation: what the network adds to every object is in all members. The half-width of the
interval that holds the share q of the errors is modelled as ``exp(c . x)`` with the `features` x of a pixel, among them
the spread. The coefficients c minimise the pinball loss of ``log |error|`` over pixels of simulated scans (quantile
regression: Koenker and Bassett, Econometrica 46, 33, 1978). `benchmarks/calibration.py` writes them to
`calibration.json`, one set for each network, and measures the coverage on other scans, of beams and objects that are
left out. Another network gets the coefficients of the first, and its intervals are said to be uncalibrated.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ptychonnx.harness.uncertainty.spread import Spread
from ptychonnx.runtime.contract import Contract

__all__ = [
    "FEATURES",
    "LEVELS",
    "QUANTITIES",
    "Calibration",
    "calibration_for",
    "features",
    "half_widths",
    "installed",
]

QUANTITIES = ("amplitude", "phase")
LEVELS = (0.68, 0.95)
FEATURES = ("one", "log spread", "log mean spread", "log misfit")
# Of the mean spread: where all members agree by chance, they are no better than this.
_FLOOR = 0.1
# What the object leaves below this cannot be told from counting noise, which is in the object too.
_LEAST_MISFIT = 1e-2


class Calibration(BaseModel):
    """Coefficients in the order of `FEATURES`, by level, and the network on whose objects they were fitted."""

    model_config = ConfigDict(frozen=True)

    n: int = Field(description="side of its patterns in pixels")
    checkpoint_sha256: str = Field(description="of the weights from which it was exported")
    amplitude: dict[str, list[float]]
    phase: dict[str, list[float]]

    def holds_for(self, contract: Contract) -> bool:
        """Whether a network is the one that was calibrated, in single precision."""
        return (
            contract.general
            and contract.quality is None
            and contract.weights is not None
            and (contract.n, contract.weights.checkpoint_sha256) == (self.n, self.checkpoint_sha256)
        )


def features(spread: Spread, quantity: str, misfit: float) -> NDArray[np.float64]:
    """`FEATURES` [features, rows, columns] of a scan, finite in the region.

    * `quantity`: ``amplitude`` or ``phase``.
    * `misfit`: forward misfit of the mean object.
    """
    deviation = spread.amplitude if quantity == "amplitude" else spread.phase
    typical = max(float(deviation[spread.region].mean()), 1e-9)
    ones = np.ones(deviation.shape)
    return np.stack(
        [
            ones,
            np.log(deviation + _FLOOR * typical),
            np.log(typical) * ones,
            np.log(max(misfit, _LEAST_MISFIT)) * ones,
        ]
    )


def half_widths(spread: Spread, misfit: float, calibration: Calibration) -> dict[str, NDArray[np.float64]]:
    """Half-widths [rows, columns] of the intervals: ``amplitude`` and ``phase`` for 68 %, ``..._95`` for 95 %."""
    result = {}
    for quantity in QUANTITIES:
        values = features(spread, quantity, misfit)
        coefficients: dict[str, list[float]] = getattr(calibration, quantity)
        narrow, wide = (
            np.exp(np.tensordot(np.array(coefficients[f"{level:g}"]), values, 1)) for level in LEVELS
        )
        # No phase is further away; each level has a regression of its own.
        largest = np.pi if quantity == "phase" else np.inf
        result[quantity] = np.minimum(narrow, largest)
        result[f"{quantity}_95"] = np.minimum(np.maximum(narrow, wide), largest)
    return result


@cache
def installed() -> dict[str, Calibration]:
    """Calibrations by the names of their networks in the zoo."""
    text = Path(__file__).with_name("calibration.json").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Calibration]).validate_json(text)


def calibration_for(contract: Contract) -> tuple[Calibration, bool]:
    """The calibration of a network, or that of the first one if it has none; and whether it is its own."""
    calibrations = list(installed().values())
    own = (calibration for calibration in calibrations if calibration.holds_for(contract))
    calibration = next(own, None)
    return calibration or calibrations[0], calibration is not None
