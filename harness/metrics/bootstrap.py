"""How far a figure could have fallen otherwise: bootstrap over tiles of the image.

Pixels are not independent, tiles nearly are. The region is cut into tiles, tiles are drawn with replacement, and
each metric is computed from what was drawn, many times (Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapters 6 and 13: percentile intervals). All tiles together give the very figures of the comparison. The
same tiles are drawn for every reconstruction, so that the difference of two is judged pair by pair: what is hard
to reconstruct is hard for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.metrics.amplitude_phase import Maps
from ptychonnx.harness.metrics.image_similarity import SSIM_WINDOW, ssim_map
from ptychonnx.harness.metrics.region import Rectangle

__all__ = ["LEVEL", "METRICS", "REPLICATES", "Confidence", "Interval", "Judged", "Sample", "confidence"]

LEVEL = 0.95
REPLICATES = 1000
METRICS = ("mae", "psnr", "ssim", "pearson")
# Fewer tell nothing, more are no longer independent.
_FEWEST_TILES, _TILES_A_SIDE = 9, 8

Interval = tuple[float, float]


@dataclass(frozen=True)
class Judged:
    """One quantity of a reconstruction.

    Attributes
    ----------
    maps
        Finite in the region.
    data_range
        Of the reference over the region, for SSIM and PSNR; None if it is constant.
    defined
        Which of `METRICS` are defined.
    """

    maps: Maps
    data_range: float | None
    defined: frozenset[str]


@dataclass(frozen=True)
class Sample:
    """One reconstruction: its quantities by name (``amplitude``, ``phase``), and where it was compared.

    `region` is bool [rows, columns], `rectangle` lies in it.
    """

    quantities: Mapping[str, Judged]
    region: NDArray[np.bool_]
    rectangle: Rectangle


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


def confidence(samples: Mapping[str, Sample], seed: int = 0) -> Confidence | None:
    """Intervals of the defined ones of `METRICS` by bootstrap over tiles.

    Parameters
    ----------
    samples
        By label; all on the same canvas.
    seed
        Of the draws, which are the same for all labels.

    Returns
    -------
    None if the smallest rectangle that holds all regions has room for less than nine tiles of the window of SSIM. A
    metric that a draw leaves undefined (there may be no pixel of the rectangle in it) is left out.
    """
    if not samples:
        return None
    bounds = _bounds(np.logical_or.reduce([sample.region for sample in samples.values()]))
    side = max(SSIM_WINDOW, -(-min(bounds.shape) // _TILES_A_SIDE))
    # The tiles at the far ends may be narrower; those without a pixel of a region are none.
    sums = {
        label: {name: _sums(judged, sample, bounds, side) for name, judged in sample.quantities.items()}
        for label, sample in samples.items()
    }
    used = np.logical_or.reduce([part[:, 0] > 0 for parts in sums.values() for part in parts.values()])
    tiles = int(used.sum())
    if tiles < _FEWEST_TILES:
        return None
    draws = np.random.default_rng(seed).multinomial(tiles, np.full(tiles, 1 / tiles), REPLICATES)
    replicates: dict[str, dict[str, NDArray[np.float64]]] = {}
    for label, sample in samples.items():
        replicates[label] = {}
        for name, judged in sample.quantities.items():
            for metric, values in _metrics(draws @ sums[label][name][used], judged.data_range).items():
                if metric in judged.defined and np.isfinite(values).all():
                    replicates[label][f"{name}_{metric}"] = values
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


def _bounds(region: NDArray[np.bool_]) -> Rectangle:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not rows.size:
        return Rectangle(0, 0, 0, 0)
    return Rectangle(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _sums(judged: Judged, sample: Sample, bounds: Rectangle, side: int) -> NDArray[np.float64]:
    """Sums over each tile [tiles, 10] of all that the metrics are made of."""
    predicted, true, difference = (np.where(sample.region, part, 0.0) for part in judged.maps)
    similarity, inside = np.zeros_like(true), np.zeros_like(true)
    if "ssim" in judged.defined and judged.data_range is not None:
        # SSIM is the mean over the pixels whose window lies inside the rectangle.
        edge = SSIM_WINDOW // 2
        inner = sample.rectangle.slices
        core = tuple(slice(part.start + edge, part.stop - edge) for part in inner)
        similarity[inner] = ssim_map(predicted[inner], true[inner], judged.data_range)
        inside[core] = 1
    rows, columns = (np.arange(0, length, side) for length in bounds.shape)

    def tiled(values: NDArray) -> NDArray[np.float64]:
        inner = values[bounds.slices].astype(np.float64)
        return np.add.reduceat(np.add.reduceat(inner, rows, axis=0), columns, axis=1).ravel()

    # One product at a time: a canvas may be large.
    sums = [
        tiled(sample.region),
        tiled(np.abs(difference)),
        tiled(difference**2),
        tiled(predicted),
        tiled(true),
        tiled(predicted**2),
        tiled(true**2),
        tiled(predicted * true),
        tiled(inside),
        tiled(similarity * inside),
    ]
    return np.stack(sums, axis=1)


def _metrics(sums: NDArray[np.float64], data_range: float | None) -> dict[str, NDArray[np.float64]]:
    """Metrics [n] of sums [n, 10]; NaN or infinite where they are not defined."""
    count, absolute, square, a, b, aa, bb, ab, inside, similarity = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = ab / count - a * b / count**2
        variances = np.clip(aa / count - (a / count) ** 2, 0, None) * np.clip(
            bb / count - (b / count) ** 2, 0, None
        )
        return {
            "mae": absolute / count,
            "psnr": 10 * np.log10((data_range or 0.0) ** 2 * count / square),
            "ssim": similarity / inside,
            "pearson": covariance / np.sqrt(variances),
        }


def _interval(values: NDArray[np.float64]) -> Interval:
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return float(low), float(high)
