"""One kind of preprocessing step, in NumPy and as nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["Argument", "InGraph", "InNumpy", "Patterns", "Step", "Takes"]

# Argument of a step: None, a number, or an array [n, n].
Argument = Any
Patterns = NDArray[np.float32]
InNumpy = Callable[[Patterns, Argument], Patterns]
InGraph = Callable[["GraphTape", "ir.Value", int, Argument], "ir.Value"]
Takes = Literal["none", "size", "factor", "number", "array", "mask"]


@dataclass(frozen=True)
class Step:
    """One kind of preprocessing step.

    The two forms are written independently, and adoption compares them in every engine.

    * `summary`: for the documentation.
    * `takes`: kind of argument: ``none``, ``size`` (whole number of pixels), ``factor`` (whole number), ``number``,
      ``array`` (a number or an array [n, n]), or ``mask`` (an array [n, n], True = trust).
    * `numpy`: (patterns, argument) to patterns.
    * `graph`: (tape, value, side n before the step, argument) to the value after the step.
    * `side`: (n, argument) to the side after the step.
    * `moves_pixels`: whether the step is one of the detector, and of no use for a patch.
    * `keeps_window`: whether the step leaves the window that a pattern covers as it is, so that the pixels of the
      object become larger or smaller. Otherwise the pixels stay, and the window follows the side.
    * `fits`: (side before the step, argument) to whether a size or a factor fits.
    """

    summary: str
    takes: Takes
    numpy: InNumpy
    graph: InGraph
    side: Callable[[int, int], int] = lambda n, _: n
    moves_pixels: bool = False
    keeps_window: bool = False
    fits: Callable[[int, int], bool] = lambda n, size: size <= n
