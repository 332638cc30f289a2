"""Steps of preprocessing, each in NumPy and as nodes of a graph.

The two forms are written apart, and adoption compares them in every engine: neither is derived from the other.
Patterns are float32 [B, 1, n, n], DC at pixel [n // 2, n // 2] unless a step says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.graph.builder import Builder

__all__ = ["STEPS", "Argument", "Step"]

# What a step takes: nothing, a number, or an array [n, n].
Argument = Any
Patterns = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One kind of preprocessing.

    Attributes
    ----------
    summary
        What it does, for the documentation.
    takes
        ``none``, ``size`` (whole number of pixels), ``factor`` (whole number), ``number``, or ``array``: a number or
        an array [n, n].
    numpy
        (patterns, argument) to patterns.
    graph
        (builder, value, side n before the step, argument) to the name of the result.
    side
        (n, argument) to the side after the step.
    """

    summary: str
    takes: str
    numpy: Callable[[Patterns, Argument], Patterns]
    graph: Callable[[Builder, str, int, Argument], str]
    side: Callable[[int, int], int] = lambda n, _: n


def _crop(x: Patterns, size: Argument) -> Patterns:
    n = x.shape[-1]
    start = n // 2 - int(size) // 2
    return x[..., start : start + int(size), start : start + int(size)]


def _crop_in_graph(builder: Builder, value: str, n: int, size: Argument) -> str:
    start = n // 2 - int(size) // 2
    for axis in (2, 3):
        value = builder.cut(value, axis, start, start + int(size))
    return value


def _rebin(x: Patterns, factor: int, total: bool) -> Patterns:
    side = x.shape[-1] // factor
    blocks = x.reshape(*x.shape[:-2], side, factor, side, factor).astype(np.float64)
    made = blocks.sum((-3, -1)) if total else blocks.mean((-3, -1))
    return made.astype(np.float32)


def _rebin_in_graph(builder: Builder, value: str, factor: int, total: bool) -> str:
    value = builder.add("AveragePool", value, kernel_shape=[factor] * 2, strides=[factor] * 2)
    return builder.add("Mul", value, builder.constant(factor**2)) if total else value


def _roll_in_graph(builder: Builder, value: str, n: int) -> str:
    """`numpy.fft.ifftshift` along rows and columns."""
    for axis in (2, 3):
        parts = [builder.cut(value, axis, n // 2, n), builder.cut(value, axis, 0, n // 2)]
        value = builder.add("Concat", *parts, axis=axis)
    return value


def _binary(operator: str) -> Callable[[Builder, str, int, Argument], str]:
    def build(builder: Builder, value: str, n: int, argument: Argument) -> str:
        return builder.add(operator, value, builder.constant(argument))

    return build


def _threshold_in_graph(builder: Builder, value: str, n: int, least: Argument) -> str:
    is_low = builder.add("Less", value, builder.constant(least))
    return builder.add("Where", is_low, builder.constant(0), value)


def _log1p_in_graph(builder: Builder, value: str, n: int, argument: Argument) -> str:
    return builder.add("Log", builder.add("Add", value, builder.constant(1)))


def _standardise(x: Patterns, argument: Argument) -> Patterns:
    wide = x.astype(np.float64)
    deviation = np.maximum(wide.std((-2, -1), keepdims=True), 1e-6)
    return ((wide - wide.mean((-2, -1), keepdims=True)) / deviation).astype(np.float32)


def _standardise_in_graph(builder: Builder, value: str, n: int, argument: Argument) -> str:
    axes = builder.constant([2, 3], np.int64)
    centred = builder.add("Sub", value, builder.add("ReduceMean", value, axes, keepdims=1))
    variance = builder.add("ReduceMean", builder.add("Mul", centred, centred), axes, keepdims=1)
    deviation = builder.add("Max", builder.add("Sqrt", variance), builder.constant(1e-6))
    return builder.add("Div", centred, deviation)


def _divide_by_max(x: Patterns, argument: Argument) -> Patterns:
    return x / np.maximum(x.max((-2, -1), keepdims=True), np.float32(1e-6))


def _divide_by_max_in_graph(builder: Builder, value: str, n: int, argument: Argument) -> str:
    largest = builder.add("ReduceMax", value, builder.constant([2, 3], np.int64), keepdims=1)
    return builder.add("Div", value, builder.add("Max", largest, builder.constant(1e-6)))


STEPS: dict[str, Step] = {
    "square": Step(
        "amplitudes become counts",
        "none",
        lambda x, _: x * x,
        lambda builder, value, n, _: builder.add("Mul", value, value),
    ),
    "round": Step(
        "to whole numbers: the square of a square root is not exact",
        "none",
        lambda x, _: np.rint(x),
        lambda builder, value, n, _: builder.add("Round", value),
    ),
    "dc_to_corner": Step(
        "the direct beam moves to pixel [0, 0]",
        "none",
        lambda x, _: np.fft.ifftshift(x, axes=(-2, -1)),
        lambda builder, value, n, _: _roll_in_graph(builder, value, n),
    ),
    "crop": Step(
        "so many pixels in the middle are kept", "size", _crop, _crop_in_graph, side=lambda n, size: size
    ),
    "rebin_mean": Step(
        "so many by so many pixels become their mean",
        "factor",
        lambda x, factor: _rebin(x, int(factor), False),
        lambda builder, value, n, factor: _rebin_in_graph(builder, value, int(factor), False),
        side=lambda n, factor: n // factor,
    ),
    "rebin_sum": Step(
        "so many by so many pixels become their sum",
        "factor",
        lambda x, factor: _rebin(x, int(factor), True),
        lambda builder, value, n, factor: _rebin_in_graph(builder, value, int(factor), True),
        side=lambda n, factor: n // factor,
    ),
    "threshold": Step(
        "what is less becomes 0",
        "number",
        lambda x, least: np.where(x < np.float32(least), np.float32(0), x),
        _threshold_in_graph,
    ),
    "add": Step("a number or a pattern is added", "array", lambda x, y: x + np.float32(y), _binary("Add")),
    "subtract": Step(
        "a number or a pattern, such as the mean pattern, is subtracted",
        "array",
        lambda x, y: x - np.float32(y),
        _binary("Sub"),
    ),
    "multiply": Step(
        "by a number or a pattern",
        "array",
        lambda x, y: x * np.float32(y),
        _binary("Mul"),
    ),
    "divide": Step(
        "by a number or a pattern",
        "array",
        lambda x, y: x / np.float32(y),
        _binary("Div"),
    ),
    "log1p": Step("natural logarithm of 1 + x", "none", lambda x, _: np.log1p(x), _log1p_in_graph),
    "standardise": Step(
        "each pattern to mean 0 and standard deviation 1", "none", _standardise, _standardise_in_graph
    ),
    "divide_by_max": Step("each pattern to a maximum of 1", "none", _divide_by_max, _divide_by_max_in_graph),
}
