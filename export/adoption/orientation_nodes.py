"""`ptychonnx.runtime.scan.orientation` as nodes of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptychonnx.runtime.scan.orientation import ORIENTATIONS, Orientation

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["orient_image_in_graph", "orient_pattern_in_graph"]

_TO_THE_START = -(2**31)


def orient_image_in_graph(tape: GraphTape, value: ir.Value, orientation: Orientation) -> ir.Value:
    """A value [B, C, n, n] in another orientation about its centre."""
    transposed, *flips = ORIENTATIONS[orientation]
    if transposed:
        value = tape.add("Transpose", value, perm=[0, 1, 3, 2])
    for axis, flipped in zip((2, 3), flips, strict=True):
        if flipped:
            value = tape.slice(value, axis, -1, _TO_THE_START, -1)
    return value


def orient_pattern_in_graph(tape: GraphTape, value: ir.Value, n: int, orientation: Orientation) -> ir.Value:
    """A value [B, C, n, n] in another orientation about the direct beam at [n // 2, n // 2]."""
    transposed, *flips = ORIENTATIONS[orientation]
    if transposed:
        value = tape.add("Transpose", value, perm=[0, 1, 3, 2])
    for axis, flipped in zip((2, 3), flips, strict=True):
        if not flipped:
            continue
        if n % 2:
            value = tape.slice(value, axis, -1, _TO_THE_START, -1)
        else:
            # The first row has no counterpart and stays.
            first, others = tape.slice(value, axis, 0, 1), tape.slice(value, axis, -1, 0, -1)
            value = tape.add("Concat", first, others, axis=axis)
    return value
