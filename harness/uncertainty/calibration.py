"""Intervals from the spread under symmetries, calibrated on simulated scans.

A spread alone is no standard deviation: what the network adds to every object is in all members. The half-width of the
interval that holds the share q of the errors is modelled as ``exp(c . x)`` with the `features` x of a pixel, among them
the spread. The coefficients c minimise the pinball loss of ``log |error|`` over pixels of simulated scans (quantile
regression: Koenker and Bassett, Econometrica 46, 33, 1978). `benchmarks/calibration.py` writes them to
`calibration.json`, and measures the coverage on other scans, of beams and objects that are left out.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.uncertainty.spread import Spread

__all__ = ["FEATURES", "LEVELS", "QUANTITIES", "features", "half_widths", "installed"]

QUANTITIES = ("amplitude", "phase")
LEVELS = (0.68, 0.95)
FEATURES = ("one", "log spread", "log mean spread", "log misfit")
# Of the mean spread: where all members agree by chance, they are no better than this.
_FLOOR = 0.1
_LEAST_MISFIT = 1e-3


def features(spread: Spread, quantity: str, misfit: float) -> NDArray[np.float64]:
    """`FEATURES` [features, rows, columns] of a scan, finite in the region.

    Parameters
    ----------
    quantity
        ``amplitude`` or ``phase``.
    misfit
        Forward misfit of the mean object.
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


def half_widths(spread: Spread, misfit: float) -> dict[str, NDArray[np.float64]]:
    """Half-widths [rows, columns] of the intervals: ``amplitude`` and ``phase`` for 68 %, ``..._95`` for 95 %."""
    result = {}
    for quantity in QUANTITIES:
        values = features(spread, quantity, misfit)
        narrow, wide = (
            np.exp(np.tensordot(np.array(installed()[quantity][f"{level:g}"]), values, 1)) for level in LEVELS
        )
        # No phase is further away; each level has a regression of its own.
        largest = np.pi if quantity == "phase" else np.inf
        result[quantity] = np.minimum(narrow, largest)
        result[f"{quantity}_95"] = np.minimum(np.maximum(narrow, wide), largest)
    return result


@cache
def installed() -> dict[str, dict[str, list[float]]]:
    """Coefficients by quantity and level, in the order of `FEATURES`."""
    path = Path(__file__).with_name("calibration.json")
    calibration: dict[str, dict[str, list[float]]] = json.loads(path.read_text(encoding="utf-8"))
    return calibration
