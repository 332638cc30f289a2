"""Inputs on which a module is tried and verified: bounds of integers; noise of several sizes, zeros, examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.lowering.module_input import ModuleInput
from ptychonnx.export.verification.inputs import PATTERNS, VerificationInputs
from ptychonnx.runtime.errors import InputError

__all__ = ["module_inputs", "positive_inputs", "with_bounds"]

# Largest integer that is tried.
_LARGEST = 1023


def with_bounds(
    inputs: Mapping[str, ModuleInput], run: Callable[[list[NDArray]], object]
) -> dict[str, ModuleInput]:
    """The inputs with the bounds of all integers; `run` runs the module on an array for each input.

    Raises InputError if the module does not even run on zeros.
    """
    described = dict(inputs)
    for name, one in inputs.items():
        if not one.is_integer or one.bounds is not None:
            continue
        if one.example is not None and one.example.size:
            bounds = (int(one.example.min()), int(one.example.max()))
        else:
            bounds = (0, _largest_accepted(inputs, name, run))
        described[name] = replace(one, bounds=bounds)
    return described


def _largest_accepted(
    inputs: Mapping[str, ModuleInput], name: str, run: Callable[[list[NDArray]], object]
) -> int:
    """The largest integer up to which the module runs, such as the last index of an embedding, by bisection."""

    def runs(value: int) -> bool:
        arrays = [
            np.full(one.full_shape(2), value if key == name else 0, one.dtype) for key, one in inputs.items()
        ]
        try:
            run(arrays)
        except Exception:  # whatever the author's code raises
            return False
        return True

    low, high = 0, min(_LARGEST, int(np.iinfo(inputs[name].dtype).max))
    if runs(high):
        return high
    if not runs(low):
        raise InputError(
            f"the module does not run on zeros for the integer input {name!r}, expected its bounds"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low


def module_inputs(inputs: Sequence[ModuleInput], seed: int = 0) -> list[VerificationInputs]:
    """Inputs of a module about which nothing is known: noise of three sizes, zeros, and examples if there are any.

    Integers are uniform within their bounds, at the lowest, in the lower half, and at the highest; booleans likewise.
    """
    generator = np.random.RandomState(seed)
    shapes = [one.full_shape(PATTERNS) for one in inputs]
    noise = [_noise(one, shape, generator) for one, shape in zip(inputs, shapes, strict=True)]
    shared = tuple(one.shared for one in inputs)
    kinds = [
        VerificationInputs(kind, rule, tuple(map(partial(_scaled, factor=factor), noise, inputs)), shared)
        for kind, rule, factor in (
            ("random", f"standard normal noise of seed {seed}", 1),
            ("all-zero", "zeros", 0),
            ("small", "the random inputs / 1000", 1e-3),
            ("large", "the random inputs x 100", 100),
        )
    ]
    examples = [one.example for one in inputs]
    present = [array for array in examples if array is not None]
    if len(present) == len(examples) and any(np.any(array) for array in present):
        kinds.insert(0, VerificationInputs("example", "the example inputs", tuple(present), shared))
    return kinds


def positive_inputs(inputs: Sequence[ModuleInput], seed: int = 0) -> VerificationInputs:
    """Uniform numbers between 0.1 and 1, for a module that returns no number otherwise, such as a logarithm."""
    generator = np.random.RandomState(seed)
    arrays = []
    for one in inputs:
        shape = one.full_shape(PATTERNS)
        is_float = np.dtype(one.dtype).kind == "f"
        values = generator.uniform(0.1, 1, shape) if is_float else _noise(one, shape, generator)
        arrays.append(values.astype(one.dtype))
    rule = f"uniform numbers from 0.1 to 1 of seed {seed}"
    return VerificationInputs("positive", rule, tuple(arrays), tuple(one.shared for one in inputs))


def _noise(one: ModuleInput, shape: tuple[int, ...], generator: np.random.RandomState) -> NDArray:
    if np.dtype(one.dtype).kind == "f":
        # In float32 first, so that adding a type changed no number.
        return np.asarray(generator.standard_normal(shape)).astype(np.float32).astype(one.dtype)
    low, high = (0, 1) if one.bounds is None else one.bounds
    return np.asarray(generator.randint(low, high + 1, shape)).astype(one.dtype)


def _scaled(noise: NDArray, one: ModuleInput, factor: float) -> NDArray:
    """Noise of another size: integers stay within their bounds."""
    if noise.dtype.kind == "f":
        # Without an axis, the product would be no array.
        # Adding zero makes zeros of negative ones, for which torch has other angles than ONNX.
        return np.asarray(noise * np.float32(factor) + np.float32(0)).astype(noise.dtype)
    low, high = (0, 1) if one.bounds is None else one.bounds
    if factor == 1:
        return noise
    if factor < 1:
        halved = low + (noise.astype(np.int64) - low) // 2
        return np.asarray(halved if factor else np.full_like(noise, low)).astype(noise.dtype)
    return np.full_like(noise, high)
