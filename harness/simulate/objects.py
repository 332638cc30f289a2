"""Simulated objects, complex64 [rows, columns]."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from skimage.draw import line_aa
from skimage.filters import gaussian

from ptychonnx.harness.simulate import densities
from ptychonnx.harness.simulate.densities import scaled
from ptychonnx.runtime.errors import InputError

__all__ = ["ObjectKind", "cells_object", "lines_object", "make_object", "star_object"]

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

# Dense enough that every window contains several lines, whatever the size of the canvas.
_PIXELS_PER_LINE = 300
_LENGTHS = (20.0, 100.0)
_PIXELS_PER_CELL = 500
_RADII = (6.0, 20.0)
_SPOKES = 36


def lines_object(
    shape: tuple[int, int], rng: np.random.Generator, *, absorption: float = 0.5, phase_shift: float = 1.2
) -> NDArray[np.complex64]:
    """Random straight lines, drawn independently for the amplitude and for the phase.

    Parameters
    ----------
    shape
        (rows, columns) of the canvas.
    rng
        Source of the lines; the same state of the generator produces the same object.
    absorption
        The amplitude ranges from 1 (no line) down to ``1 - absorption`` (the densest crossing).
    phase_shift
        The phase ranges from 0 to this value in radians.

    Returns
    -------
    complex64 [rows, columns], the transmission.
    """
    absorbed = absorption * _lines(shape, rng)
    return _transmission(absorbed, phase_shift * _lines(shape, rng))


def cells_object(
    shape: tuple[int, int], rng: np.random.Generator, *, absorption: float = 0.5, phase_shift: float = 1.2
) -> NDArray[np.complex64]:
    """Overlapping rounded bodies of random size with denser cores; parameters as for `lines_object`.

    The bodies are smooth inside and have curved edges. Each absorbs and retards in a random proportion.
    """
    thickness, absorbing = np.zeros(shape), np.zeros(shape)
    rows, columns = np.indices(shape, dtype=np.float64)
    for _ in range(int(shape[0] * shape[1] / _PIXELS_PER_CELL)):
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        angle, long, short = rng.uniform(0, np.pi), rng.uniform(*_RADII), rng.uniform(*_RADII)
        along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
        across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
        squared = (along / long) ** 2 + (across / short) ** 2
        body = np.sqrt(np.clip(1 - squared, 0, 1)) + np.sqrt(np.clip(1 - 9 * squared, 0, 1))
        thickness += rng.uniform(0.3, 1.0) * body
        absorbing += rng.uniform(0.0, 1.0) * body
    return _transmission(absorption * scaled(absorbing), phase_shift * scaled(thickness))


def star_object(
    shape: tuple[int, int], rng: np.random.Generator, *, absorption: float = 0.5, phase_shift: float = 1.2
) -> NDArray[np.complex64]:
    """A Siemens star of one material on the whole canvas, randomly rotated; parameters as for `lines_object`."""
    rows, columns = np.indices(shape, dtype=np.float64)
    row, column = rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2
    spokes = np.sin(_SPOKES * np.arctan2(row, column) + rng.uniform(0, 2 * np.pi)) > 0
    gold = gaussian(spokes.astype(np.float64), sigma=1.0)
    return _transmission(absorption * gold, phase_shift * gold)


_MAKERS = {"lines": lines_object, "cells": cells_object, "star": star_object}
_DENSITIES = {name: getattr(densities, name) for name in densities.__all__}


def make_object(
    kind: str,
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    absorption: float = 0.5,
    phase_shift: float = 1.2,
) -> NDArray[np.complex64]:
    """An object of the given kind, complex64 [rows, columns]; parameters as for `lines_object`.

    Raises InputError if the kind is unknown.
    """
    if kind in _MAKERS:
        return _MAKERS[kind](shape, rng, absorption=absorption, phase_shift=phase_shift)
    if kind not in _DENSITIES:
        raise InputError(f"object {kind!r} is unknown, expected one of {', '.join(get_args(ObjectKind))}")
    absorbing, retarding = _DENSITIES[kind](shape, rng)
    return _transmission(absorption * absorbing, phase_shift * retarding)


def _transmission(absorbed: NDArray[np.float64], phase: NDArray[np.float64]) -> NDArray[np.complex64]:
    return ((1 - absorbed) * np.exp(1j * phase)).astype(np.complex64)


def _lines(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Anti-aliased lines of random width and density, slightly blurred, scaled to [0, 1]."""
    canvas = np.zeros(shape)
    for _ in range(int(shape[0] * shape[1] / _PIXELS_PER_LINE)):
        length = rng.uniform(*_LENGTHS)
        angle = rng.uniform(0, np.pi)
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        width, density = int(rng.integers(1, 5)), rng.uniform(0.3, 1.0)
        half = length / 2 * np.array([np.sin(angle), np.cos(angle)])
        across = np.array([np.cos(angle), -np.sin(angle)])
        stroke = np.zeros(shape)
        for offset in np.arange(width) - (width - 1) / 2:
            (r0, c0), (r1, c1) = (np.array([row, column]) + offset * across + sign * half for sign in (-1, 1))
            rows, columns, value = line_aa(*(round(float(v)) for v in (r0, c0, r1, c1)))
            inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
            np.maximum.at(stroke, (rows[inside], columns[inside]), value[inside])
        canvas += density * stroke
    return scaled(canvas)
