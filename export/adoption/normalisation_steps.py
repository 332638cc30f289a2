"""Steps that scale each pattern by a figure of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ptychonnx.export.adoption.step import Argument, InGraph, InNumpy, Patterns, Step

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["NORMALISATION_STEPS"]

# Smallest divisor, so that a pattern without photons stays finite.
_LEAST = 1e-6


def _standardise(x: Patterns, argument: Argument) -> Patterns:
    wide = x.astype(np.float64)
    deviation = np.maximum(wide.std((-2, -1), keepdims=True), _LEAST)
    return ((wide - wide.mean((-2, -1), keepdims=True)) / deviation).astype(np.float32)


def _standardise_in_graph(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
    axes = tape.integers(2, 3)
    centred = tape.add("Sub", value, tape.add("ReduceMean", value, axes, keepdims=1))
    variance = tape.add("ReduceMean", tape.add("Mul", centred, centred), axes, keepdims=1)
    return _divide_in_graph(tape, centred, tape.add("Sqrt", variance))


def _to_unit_range(x: Patterns, argument: Argument) -> Patterns:
    wide = x.astype(np.float64)
    least, most = wide.min((-2, -1), keepdims=True), wide.max((-2, -1), keepdims=True)
    return ((wide - least) / np.maximum(most - least, _LEAST)).astype(np.float32)


def _to_unit_range_in_graph(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
    axes = tape.integers(2, 3)
    shifted = tape.add("Sub", value, tape.add("ReduceMin", value, axes, keepdims=1))
    return _divide_in_graph(tape, shifted, tape.add("ReduceMax", shifted, axes, keepdims=1))


def _divide_in_graph(tape: GraphTape, value: ir.Value, divisor: ir.Value) -> ir.Value:
    return tape.add("Div", value, tape.add("Max", divisor, tape.constant(_LEAST, np.float32)))


def _divided(figure: Callable[..., Any]) -> InNumpy:
    def run(x: Patterns, argument: Argument) -> Patterns:
        wide = x.astype(np.float64)
        divisor = figure(wide, axis=(-2, -1), keepdims=True)
        return (wide / np.maximum(divisor, _LEAST)).astype(np.float32)

    return run


def _divided_in_graph(operator: str) -> InGraph:
    def build(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
        divisor = tape.add(operator, value, tape.integers(2, 3), keepdims=1)
        if operator == "ReduceSumSquare":
            divisor = tape.add("Sqrt", divisor)
        return _divide_in_graph(tape, value, divisor)

    return build


NORMALISATION_STEPS: dict[str, Step] = {
    "standardise": Step(
        "Scales each pattern to mean 0 and standard deviation 1.", "none", _standardise, _standardise_in_graph
    ),
    "divide_by_max": Step(
        "Scales each pattern to a maximum of 1.", "none", _divided(np.max), _divided_in_graph("ReduceMax")
    ),
    "divide_by_mean": Step(
        "Scales each pattern to a mean of 1.", "none", _divided(np.mean), _divided_in_graph("ReduceMean")
    ),
    "divide_by_sum": Step(
        "Scales each pattern to a sum of 1.", "none", _divided(np.sum), _divided_in_graph("ReduceSum")
    ),
    "divide_by_norm": Step(
        "Scales each pattern to a sum of squares of 1.",
        "none",
        _divided(np.linalg.norm),
        _divided_in_graph("ReduceSumSquare"),
    ),
    "unit_range": Step(
        "Scales each pattern to a minimum of 0 and a maximum of 1.",
        "none",
        _to_unit_range,
        _to_unit_range_in_graph,
    ),
}
