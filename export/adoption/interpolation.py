"""Linear interpolation of images as products with constant matrices, and the same in loops."""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["interpolate", "interpolate_in_graph", "interpolation_matrix"]


def interpolation_matrix(
    source: int, target: int, step: float, source_centre: float, target_centre: float
) -> NDArray[np.float64]:
    """Weights [target, source] that interpolate one axis of so many pixels; the centres coincide.

    The step is the distance of two target pixels, in source pixels. Above 1, the kernel, a triangle, is as wide as the
    step, so that no pixel of the source is skipped. Weights sum to 1. Outside of the source, its outermost pixels are
    repeated.
    """
    positions = source_centre + (np.arange(target) - target_centre) * step
    positions = np.clip(positions, 0, source - 1)
    distances = np.abs(positions[:, None] - np.arange(source)) / max(step, 1.0)
    weights = np.maximum(1 - distances, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def interpolate_in_graph(
    tape: GraphTape,
    images: ir.Value,
    source: int,
    target: int,
    step: float,
    source_centre: float,
    target_centre: float,
) -> ir.Value:
    """Images [..., n, n] times `interpolation_matrix` along rows and columns, as nodes of a graph."""
    weights = interpolation_matrix(source, target, step, source_centre, target_centre)
    rows = tape.add("MatMul", tape.constant(weights, np.float32), images)
    return tape.add("MatMul", rows, tape.constant(weights.T, np.float32))


def interpolate(
    images: NDArray, target: int, step: float, source_centre: float, target_centre: float
) -> NDArray:
    """Images [..., n, n] interpolated to [..., target, target], pixel by pixel; see `interpolation_matrix`."""
    for axis in (-2, -1):
        lines = np.moveaxis(images, axis, -1)
        last = lines.shape[-1] - 1
        width = max(step, 1.0)
        interpolated = np.zeros((*lines.shape[:-1], target), np.result_type(lines, np.float64))
        for pixel in range(target):
            position = min(max(source_centre + (pixel - target_centre) * step, 0.0), float(last))
            total = 0.0
            for neighbour in range(max(ceil(position - width), 0), min(floor(position + width), last) + 1):
                weight = 1 - abs(position - neighbour) / width
                interpolated[..., pixel] += weight * lines[..., neighbour]
                total += weight
            interpolated[..., pixel] /= total
        images = np.moveaxis(interpolated, -1, axis)
    return images
