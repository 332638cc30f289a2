"""`ptychonnx.runtime.scan.orientation` as nodes of a graph."""

from __future__ import annotations

from ptychonnx.export.graph.builder import Builder
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, Orientation

__all__ = ["orient_image_in_graph", "orient_pattern_in_graph"]

_TO_THE_START = -(2**31)


def orient_image_in_graph(builder: Builder, value: str, orientation: Orientation) -> str:
    """A value [B, C, n, n] turned about its middle."""
    transposed, *flips = ORIENTATIONS[orientation]
    if transposed:
        value = builder.add("Transpose", value, perm=[0, 1, 3, 2])
    for axis, flipped in zip((2, 3), flips, strict=True):
        if flipped:
            value = builder.cut(value, axis, -1, _TO_THE_START, -1)
    return value


def orient_pattern_in_graph(builder: Builder, value: str, n: int, orientation: Orientation) -> str:
    """A value [B, C, n, n] turned about the direct beam at [n // 2, n // 2]."""
    transposed, *flips = ORIENTATIONS[orientation]
    if transposed:
        value = builder.add("Transpose", value, perm=[0, 1, 3, 2])
    for axis, flipped in zip((2, 3), flips, strict=True):
        if not flipped:
            continue
        if n % 2:
            value = builder.cut(value, axis, -1, _TO_THE_START, -1)
        else:
            # The first row stays: it has no counterpart.
            first, others = builder.cut(value, axis, 0, 1), builder.cut(value, axis, -1, 0, -1)
            value = builder.add("Concat", first, others, axis=axis)
    return value
