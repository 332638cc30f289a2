"""Confidence intervals of metrics: bootstrap over tiles of the image.

Pixels are not independent, tiles nearly are. The region is cut into tiles, tiles are drawn with replacement, and each
metric is computed from every draw (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13:
percentile intervals). All tiles together reproduce the metrics of the comparison. The same tiles are drawn for every
reconstruction, so that the difference of two reconstructions is judged in pairs: a part that is hard to reconstruct is
hard for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.metrics.amplitude_phase import ImageTriple
from ptychonnx.harness.metrics.image_similarity import SSIM_WINDOW, ssim_map
from ptychonnx.harness.metrics.region import Rectangle, bounding_rectangle

__all__ = [
    "LEVEL",
    "METRICS",
    "REPLICATES",
    "Confidence",
    "Interval",
    "QuantitySample",
    "ReconstructionSample",
    "bootstrap_confidence",
]

LEVEL = 0.95
REPLICATES = 1000
METRICS = ("mae", "psnr", "ssim", "pearson")
# Fewer tiles are not informative, more are no longer independent.
_FEWEST_TILES, _TILES_A_SIDE = 9, 8

Interval = tuple[float, float]


@dataclass(frozen=True)
class QuantitySample:
    """Amplitude or phase of a reconstruction.

    * `images`: finite in the region.
    * `data_range`: range of the reference over the region, for SSIM and PSNR; None if the reference is constant.
    * `defined`: those of `METRICS` that are defined.
    """

    images: ImageTriple
    data_range: float | None
    defined: frozenset[str]


@dataclass(frozen=True)
class ReconstructionSample:
    """One reconstruction and the pixels on which it was compared.

    * `quantities`: by name: ``amplitude`` and ``phase``.
    * `region`, `rectangle`: bool [rows, columns], and the largest rectangle inside it.
    """

    quantities: Mapping[str, QuantitySample]
    region: NDArray[np.bool_]
    rectangle: Rectangle


class Confidence(BaseModel):
    """Confidence intervals of all reconstructions of one scan. Metrics are named as in ``amplitude_ssim``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float
    tiles: int
    tile_px: int = Field(description="side of a tile in pixels")
    intervals: dict[str, dict[str, Interval]] = Field(description="lower and upper limit by label and metric")
    differences: dict[str, dict[str, dict[str, Interval]]] = Field(
        description="interval of the first minus the second, by label, other label and metric"
    )

    def differs(self, label: str, other: str, metric: str) -> bool:
        """Whether the interval of the difference excludes 0."""
        low, high = self.differences[label][other][metric]
        return low > 0 or high < 0


def bootstrap_confidence(samples: Mapping[str, ReconstructionSample]) -> Confidence | None:
    """Confidence intervals of `METRICS`, where defined, by bootstrap over tiles.

    `samples` are reconstructions by label, all on the same canvas; the draws are the same for all of them.

    Returns None if the bounding box of all regions holds fewer than nine tiles of the size of the SSIM window. A metric
    that is undefined in any draw (without a pixel of the rectangle, for instance) is left out.
    """
    if not samples:
        return None
    bounds = bounding_rectangle(np.logical_or.reduce([sample.region for sample in samples.values()]))
    side = max(SSIM_WINDOW, -(-min(bounds.shape) // _TILES_A_SIDE))
    # Tiles at the far edges may be narrower; tiles without a pixel of a region are not drawn.
    sums = {
        label: {name: _sums(quantity, sample, bounds, side) for name, quantity in sample.quantities.items()}
        for label, sample in samples.items()
    }
    used = np.logical_or.reduce([part[:, 0] > 0 for parts in sums.values() for part in parts.values()])
    tiles = int(used.sum())
    if tiles < _FEWEST_TILES:
        return None
    draws = np.random.default_rng(0).multinomial(tiles, np.full(tiles, 1 / tiles), REPLICATES)
    replicates: dict[str, dict[str, NDArray[np.float64]]] = {}
    for label, sample in samples.items():
        replicates[label] = {}
        for name, quantity in sample.quantities.items():
            for metric, values in _metrics(draws @ sums[label][name][used], quantity.data_range).items():
                if metric in quantity.defined and np.isfinite(values).all():
                    replicates[label][f"{name}_{metric}"] = values
    return Confidence(
        level=LEVEL,
        tiles=tiles,
        tile_px=side,
        intervals={
            label: {metric: _interval(values) for metric, values in own.items()}
            for label, own in replicates.items()
        },
        differences={
            label: {
                other: {
                    metric: _interval(values - replicates[other][metric])
                    for metric, values in own.items()
                    if metric in replicates[other]
                }
                for other in replicates
                if other != label
            }
            for label, own in replicates.items()
        },
    )


def _sums(
    quantity: QuantitySample, sample: ReconstructionSample, bounds: Rectangle, side: int
) -> NDArray[np.float64]:
    """Sums over each tile [tiles, 10] of the terms that the metrics consist of."""
    from skimage.measure import block_reduce

    predicted, true, difference = (np.where(sample.region, image, 0.0) for image in quantity.images)
    similarity, inside = np.zeros_like(true), np.zeros_like(true)
    if "ssim" in quantity.defined and quantity.data_range is not None:
        # SSIM is the mean over the pixels whose window lies inside the rectangle.
        edge = SSIM_WINDOW // 2
        inner = sample.rectangle.slices
        core = tuple(slice(part.start + edge, part.stop - edge) for part in inner)
        similarity[inner] = ssim_map(predicted[inner], true[inner], quantity.data_range)
        inside[core] = 1

    def tiled(values: NDArray) -> NDArray[np.float64]:
        return block_reduce(values[bounds.slices].astype(np.float64), side, np.sum).ravel()

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
    """Metrics [n] from sums [n, 10]; NaN or infinite where not defined."""
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
