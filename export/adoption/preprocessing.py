"""Preprocessing steps, each in NumPy and as nodes of a graph.

The two forms are written independently, and adoption compares them in every engine.
Patterns are float32 [B, 1, n, n], DC at pixel [n // 2, n // 2] unless a step says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["STEPS", "Argument", "Step"]

# Argument of a step: None, a number, or an array [n, n].
Argument = Any
Patterns = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One kind of preprocessing step.

    Attributes
    ----------
    summary
        For the documentation.
    takes
        Kind of argument: ``none``, ``size`` (whole number of pixels), ``factor`` (whole number), ``number``, or
        ``array`` (a number or an array [n, n]).
    numpy
        (patterns, argument) to patterns.
    graph
        (tape, value, side n before the step, argument) to the value after the step.
    side
        (n, argument) to the side after the step.
    """

    summary: str
    takes: str
    numpy: Callable[[Patterns, Argument], Patterns]
    graph: Callable[[GraphTape, ir.Value, int, Argument], ir.Value]
    side: Callable[[int, int], int] = lambda n, _: n


def _crop(x: Patterns, size: Argument) -> Patterns:
    n = x.shape[-1]
    start = n // 2 - int(size) // 2
    return x[..., start : start + int(size), start : start + int(size)]


def _crop_in_graph(tape: GraphTape, value: ir.Value, n: int, size: Argument) -> ir.Value:
    start = n // 2 - int(size) // 2
    for axis in (2, 3):
        value = tape.slice(value, axis, start, start + int(size))
    return value


def _rebin(x: Patterns, factor: int, total: bool) -> Patterns:
    side = x.shape[-1] // factor
    blocks = x.reshape(*x.shape[:-2], side, factor, side, factor).astype(np.float64)
    rebinned = blocks.sum((-3, -1)) if total else blocks.mean((-3, -1))
    return rebinned.astype(np.float32)


def _rebin_in_graph(tape: GraphTape, value: ir.Value, factor: int, total: bool) -> ir.Value:
    value = tape.add("AveragePool", value, kernel_shape=[factor] * 2, strides=[factor] * 2)
    return tape.add("Mul", value, tape.constant(factor**2, np.float32)) if total else value


def _roll_in_graph(tape: GraphTape, value: ir.Value, n: int) -> ir.Value:
    """`numpy.fft.ifftshift` along rows and columns."""
    for axis in (2, 3):
        parts = [tape.slice(value, axis, n // 2, n), tape.slice(value, axis, 0, n // 2)]
        value = tape.add("Concat", *parts, axis=axis)
    return value


def _binary(operator: str) -> Callable[[GraphTape, ir.Value, int, Argument], ir.Value]:
    def build(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
        return tape.add(operator, value, tape.constant(argument, np.float32))

    return build


def _threshold_in_graph(tape: GraphTape, value: ir.Value, n: int, least: Argument) -> ir.Value:
    is_low = tape.add("Less", value, tape.constant(least, np.float32))
    return tape.add("Where", is_low, tape.constant(0, np.float32), value)


def _log1p_in_graph(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
    return tape.add("Log", tape.add("Add", value, tape.constant(1, np.float32)))


def _standardise(x: Patterns, argument: Argument) -> Patterns:
    wide = x.astype(np.float64)
    deviation = np.maximum(wide.std((-2, -1), keepdims=True), 1e-6)
    return ((wide - wide.mean((-2, -1), keepdims=True)) / deviation).astype(np.float32)


def _standardise_in_graph(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
    axes = tape.integers(2, 3)
    centred = tape.add("Sub", value, tape.add("ReduceMean", value, axes, keepdims=1))
    variance = tape.add("ReduceMean", tape.add("Mul", centred, centred), axes, keepdims=1)
    deviation = tape.add("Max", tape.add("Sqrt", variance), tape.constant(1e-6, np.float32))
    return tape.add("Div", centred, deviation)


def _divide_by_max(x: Patterns, argument: Argument) -> Patterns:
    return x / np.maximum(x.max((-2, -1), keepdims=True), np.float32(1e-6))


def _divide_by_max_in_graph(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
    largest = tape.add("ReduceMax", value, tape.integers(2, 3), keepdims=1)
    return tape.add("Div", value, tape.add("Max", largest, tape.constant(1e-6, np.float32)))


STEPS: dict[str, Step] = {
    "square": Step(
        "Squares amplitudes, which become counts.",
        "none",
        lambda x, _: x * x,
        lambda tape, value, n, _: tape.add("Mul", value, value),
    ),
    "round": Step(
        "Rounds to whole numbers, because the square of a square root is not exact.",
        "none",
        lambda x, _: np.rint(x),
        lambda tape, value, n, _: tape.add("Round", value),
    ),
    "dc_to_corner": Step(
        "Moves the direct beam to pixel [0, 0].",
        "none",
        lambda x, _: np.fft.ifftshift(x, axes=(-2, -1)),
        lambda tape, value, n, _: _roll_in_graph(tape, value, n),
    ),
    "crop": Step(
        "Keeps a square of this many pixels in the centre.",
        "size",
        _crop,
        _crop_in_graph,
        side=lambda n, size: size,
    ),
    "rebin_mean": Step(
        "Replaces blocks of factor x factor pixels by their mean.",
        "factor",
        lambda x, factor: _rebin(x, int(factor), False),
        lambda tape, value, n, factor: _rebin_in_graph(tape, value, int(factor), False),
        side=lambda n, factor: n // factor,
    ),
    "rebin_sum": Step(
        "Replaces blocks of factor x factor pixels by their sum.",
        "factor",
        lambda x, factor: _rebin(x, int(factor), True),
        lambda tape, value, n, factor: _rebin_in_graph(tape, value, int(factor), True),
        side=lambda n, factor: n // factor,
    ),
    "threshold": Step(
        "Sets values below the number to 0.",
        "number",
        lambda x, least: np.where(x < np.float32(least), np.float32(0), x),
        _threshold_in_graph,
    ),
    "add": Step("Adds a number or a pattern.", "array", lambda x, y: x + np.float32(y), _binary("Add")),
    "subtract": Step(
        "Subtracts a number or a pattern, such as the mean pattern.",
        "array",
        lambda x, y: x - np.float32(y),
        _binary("Sub"),
    ),
    "multiply": Step(
        "Multiplies by a number or a pattern.",
        "array",
        lambda x, y: x * np.float32(y),
        _binary("Mul"),
    ),
    "divide": Step(
        "Divides by a number or a pattern.",
        "array",
        lambda x, y: x / np.float32(y),
        _binary("Div"),
    ),
    "log1p": Step("Natural logarithm of 1 + x.", "none", lambda x, _: np.log1p(x), _log1p_in_graph),
    "standardise": Step(
        "Scales each pattern to mean 0 and standard deviation 1.", "none", _standardise, _standardise_in_graph
    ),
    "divide_by_max": Step(
        "Scales each pattern to a maximum of 1.", "none", _divide_by_max, _divide_by_max_in_graph
    ),
}
