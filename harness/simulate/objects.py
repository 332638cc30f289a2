"""Simulated objects, complex64 [rows, columns]."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.simulate import densities
from ptychonnx.runtime.errors import InputError

__all__ = ["ObjectKind", "make_object"]

ObjectKind = Literal[
    "lines",
    "cells",
    "star",
    "grains",
    "circuits",
    "spokes",
    "smooth",
    "natural",
    "photographs",
    "spheres",
    "labyrinth",
    "leaves",
]

_DENSITIES = {name: getattr(densities, name) for name in densities.__all__}


def make_object(
    kind: str,
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    absorption: float = 0.5,
    phase_shift: float = 1.2,
) -> NDArray[np.complex64]:
    """An object of a kind.

    Raises InputError if the kind is unknown.

    * `shape`: (rows, columns) of the canvas.
    * `rng`: source of all random numbers; the same state of the generator produces the same object.
    * `absorption`: the amplitude ranges from 1 (no material) down to ``1 - absorption`` (where it is densest).
    * `phase_shift`: the phase ranges from 0 to this value in radians.

    Returns complex64 [rows, columns], the transmission.
    """
    if kind not in _DENSITIES:
        raise InputError(f"object {kind!r} is unknown, expected one of {', '.join(get_args(ObjectKind))}")
    absorbing, retarding = _DENSITIES[kind](shape, rng)
    return ((1 - absorption * absorbing) * np.exp(1j * (phase_shift * retarding))).astype(np.complex64)
