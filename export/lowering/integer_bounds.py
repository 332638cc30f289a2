"""Bounds of integer inputs: given, those of an example, or the largest that a module accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.lowering.module_input import ModuleInput
from ptychonnx.runtime.errors import InputError

__all__ = ["with_bounds"]

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
