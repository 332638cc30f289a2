"""Steps that change every pixel by itself, or scale each pattern by a figure of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ptychonnx.export.adoption.step import Argument, InGraph, InNumpy, Patterns, Step

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["NORMALISATION_STEPS", "VALUE_STEPS"]

# Smallest divisor, so that a pattern without photons stays finite.
_LEAST = 1e-6


def _unary(operator: str) -> InGraph:
    return lambda tape, value, n, argument: tape.add(operator, value)


def _binary(operator: str) -> InGraph:
    def build(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
        return tape.add(operator, value, tape.constant(argument, np.float32))

    return build


def _threshold_in_graph(tape: GraphTape, value: ir.Value, n: int, least: Argument) -> ir.Value:
    is_low = tape.add("Less", value, tape.constant(least, np.float32))
    return tape.add("Where", is_low, tape.constant(0, np.float32), value)


def _mask_in_graph(tape: GraphTape, value: ir.Value, n: int, mask: Argument) -> ir.Value:
    return tape.add("Where", tape.constant(mask, np.bool_), value, tape.constant(0, np.float32))


def _log1p_in_graph(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
    return tape.add("Log", tape.add("Add", value, tape.constant(1, np.float32)))


def _log10_in_graph(tape: GraphTape, value: ir.Value, n: int, argument: Argument) -> ir.Value:
    return tape.add("Mul", tape.add("Log", value), tape.constant(1 / np.log(10), np.float32))


def _quiet(function: InNumpy) -> InNumpy:
    """Without NumPy's warnings: a result that is not finite is reported as such."""

    def run(x: Patterns, argument: Argument) -> Patterns:
        with np.errstate(all="ignore"):
            return function(x, argument)

    return run


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


VALUE_STEPS: dict[str, Step] = {
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
        _unary("Round"),
    ),
    "threshold": Step(
        "Sets values below the number to 0.",
        "number",
        lambda x, least: np.where(x < np.float32(least), np.float32(0), x),
        _threshold_in_graph,
    ),
    "minimum": Step(
        "Raises smaller values to the number.",
        "number",
        lambda x, least: np.where(x < np.float32(least), np.float32(least), x),
        _binary("Max"),
    ),
    "maximum": Step(
        "Lowers larger values to the number.",
        "number",
        lambda x, most: np.where(x > np.float32(most), np.float32(most), x),
        _binary("Min"),
    ),
    "mask": Step(
        "Sets pixels to 0 where the mask is 0 or False.",
        "mask",
        lambda x, mask: np.where(mask, x, np.float32(0)),
        _mask_in_graph,
    ),
    "add": Step("Adds a number or a pattern.", "array", lambda x, y: x + np.float32(y), _binary("Add")),
    "subtract": Step(
        "Subtracts a number or a pattern, such as the mean pattern.",
        "array",
        lambda x, y: x - np.float32(y),
        _binary("Sub"),
    ),
    "multiply": Step(
        "Multiplies by a number or a pattern.", "array", lambda x, y: x * np.float32(y), _binary("Mul")
    ),
    "divide": Step(
        "Divides by a number or a pattern.", "array", lambda x, y: x / np.float32(y), _binary("Div")
    ),
    "power": Step(
        "Raises to this power; 0.5 is the square root.",
        "number",
        _quiet(lambda x, exponent: np.power(x, np.float32(exponent))),
        _binary("Pow"),
    ),
    "exp": Step("Exponential function.", "none", _quiet(lambda x, _: np.exp(x)), _unary("Exp")),
    "log": Step(
        "Natural logarithm; add a small number first, because patterns have pixels without a photon.",
        "none",
        _quiet(lambda x, _: np.log(x)),
        _unary("Log"),
    ),
    "log10": Step("Decimal logarithm; as `log`.", "none", _quiet(lambda x, _: np.log10(x)), _log10_in_graph),
    "log1p": Step("Natural logarithm of 1 + x.", "none", lambda x, _: np.log1p(x), _log1p_in_graph),
}

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
