"""How far a figure could have fallen otherwise: bootstrap over tiles of the image.

Pixels are not independent, tiles nearly are. The rectangle that SSIM is taken on is cut into tiles, tiles are
drawn with replacement, and each metric is computed from what was drawn, many times (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapters 6 and 13: percentile intervals). The same tiles are drawn for
every reconstruction, so that the difference of two is judged pair by pair: what is hard to reconstruct is hard
for both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from harness.metrics.image import SSIM_WINDOW, ssim_map
from harness.metrics.region import Rectangle

__all__ = ["LEVEL", "REPLICATES", "Confidence", "Maps", "confidence"]

LEVEL = 0.95
REPLICATES = 1000
# Fewer tell nothing, more are no longer independent.
_FEWEST_TILES, _TILES_A_SIDE = 9, 8

Interval = tuple[float, float]
# (prediction, reference, difference) of one quantity, each [rows, columns].
Maps = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


class Confidence(BaseModel):
    """Intervals of all reconstructions of one scan. Metrics are called as in ``amplitude_ssim``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float
    tiles: int
    tile_px: int = Field(description="side of a tile in pixels")
    intervals: dict[str, dict[str, Interval]] = Field(
        description="by label and metric: lowest and highest value"
    )
    differences: dict[str, dict[str, dict[str, Interval]]] = Field(
        description="by label, other label and metric: of the first less the second"
    )

    def differs(self, label: str, other: str, metric: str) -> bool:
        """Whether 0 lies outside the interval of the difference."""
        low, high = self.differences[label][other][metric]
        return low > 0 or high < 0


def confidence(
    maps: Mapping[str, Mapping[str, Maps]], rectangle: Rectangle, seed: int = 0
) -> Confidence | None:
    """Intervals by bootstrap over tiles of `rectangle`.

    Parameters
    ----------
    maps
        By label and quantity (``amplitude``, ``phase``); finite inside the rectangle.
    seed
        Of the draws, which are the same for all labels.

    Returns
    -------
    MAE, SSIM and Pearson correlation of each quantity; those that are not defined in all draws (a constant map) are
    left out. None if the rectangle is too small for nine tiles of the window of SSIM.
    """
    side = max(SSIM_WINDOW, -(-min(rectangle.shape) // _TILES_A_SIDE))
    rows, columns = (length // side for length in rectangle.shape)
    tiles = rows * columns
    if tiles < _FEWEST_TILES or not maps:
        return None
    draws = np.random.default_rng(seed).multinomial(tiles, np.full(tiles, 1 / tiles), REPLICATES)
    replicates: dict[str, dict[str, NDArray[np.float64]]] = {}
    for label, quantities in maps.items():
        replicates[label] = {}
        for quantity, each in quantities.items():
            sums = _sums(each, rectangle, side, (rows, columns))
            for metric, values in _metrics(draws @ sums).items():
                if np.isfinite(values).all():
                    replicates[label][f"{quantity}_{metric}"] = values
    return Confidence(
        level=LEVEL,
        tiles=tiles,
        tile_px=side,
        intervals={
            label: {metric: _interval(values) for metric, values in found.items()}
            for label, found in replicates.items()
        },
        differences={
            label: {
                other: {
                    metric: _interval(values - replicates[other][metric])
                    for metric, values in found.items()
                    if metric in replicates[other]
                }
                for other in replicates
                if other != label
            }
            for label, found in replicates.items()
        },
    )


def _sums(maps: Maps, rectangle: Rectangle, side: int, grid: tuple[int, int]) -> NDArray[np.float64]:
    """Sums over each tile [tiles, 8] of all that the metrics are made of."""
    predicted, true, difference = (part[rectangle.slices].astype(np.float64) for part in maps)
    similarity = ssim_map(predicted, true, float(np.ptp(true)))
    parts = [
        np.ones_like(true),
        np.abs(difference),
        predicted,
        true,
        predicted**2,
        true**2,
        predicted * true,
        similarity,
    ]
    rows, columns = grid
    stacked = np.stack([part[: rows * side, : columns * side] for part in parts])
    blocks = stacked.reshape(len(parts), rows, side, columns, side).sum((2, 4))
    return blocks.reshape(len(parts), rows * columns).T


def _metrics(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Metrics [n] of sums [n, 8]."""
    count, absolute, a, b, aa, bb, ab, similarity = sums.T
    covariance = ab / count - a * b / count**2
    variances = np.clip(aa / count - (a / count) ** 2, 0, None) * np.clip(
        bb / count - (b / count) ** 2, 0, None
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.sqrt(variances)
    return {"mae": absolute / count, "ssim": similarity / count, "pearson": correlation}


def _interval(values: NDArray[np.float64]) -> Interval:
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return float(low), float(high)
