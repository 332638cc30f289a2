"""Simulated probes, complex64 [1, N, N], with unit power."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = ["PIXEL_SIZE", "WAVELENGTH", "ProbeKind", "disk_probe", "make_probe", "zone_plate_probe"]

ProbeKind = Literal["zone-plate", "disk"]

WAVELENGTH = 1.24e-10  # 10 keV
PIXEL_SIZE = 10e-9
_FIELD_FACTOR = (
    8  # the focus is computed in a field wider by this factor, so that its tails do not wrap around
)


def zone_plate_probe(
    size: int,
    *,
    pixel_size: float = PIXEL_SIZE,
    wavelength: float = WAVELENGTH,
    outermost_zone: float = 30e-9,
    central_stop: float = 1 / 3,
    defocus: float = 70e-6,
) -> NDArray[np.complex64]:
    """Field near the focus of a zone plate with a central stop.

    The pupil is an annulus whose outer radius is the numerical aperture ``wavelength / (2 * outermost_zone)``;
    the field at `defocus` behind the focus is its Fourier transform after the paraxial phase
    ``-pi * wavelength * defocus * k^2`` (Goodman, Introduction to Fourier Optics, 3rd ed., eq. 4-21).

    * `size`: N, pixels.
    * `pixel_size`, `wavelength`, `outermost_zone`, `defocus`: metres.
    * `central_stop`: diameter of the stop as a fraction of the diameter of the zone plate.

    Returns complex64 [1, N, N], sum of |P|^2 = 1, centred at pixel [N // 2, N // 2].
    """
    field = size * _FIELD_FACTOR
    k = np.fft.fftfreq(field, pixel_size)
    k_squared = k[:, None] ** 2 + k[None, :] ** 2
    cutoff = 1 / (2 * outermost_zone)
    annulus = _edge(np.sqrt(k_squared), cutoff, k[1]) - _edge(np.sqrt(k_squared), cutoff * central_stop, k[1])
    pupil = annulus * np.exp(-1j * np.pi * wavelength * defocus * k_squared)
    focus = np.fft.fftshift(np.fft.ifft2(pupil))
    start = field // 2 - size // 2
    return _unit_power(focus[start : start + size, start : start + size])


def disk_probe(size: int, *, radius: float | None = None) -> NDArray[np.complex64]:
    """An idealised pinhole: a flat disk with an edge one pixel wide; the radius is N / 4 pixels by default."""
    axis = np.arange(size) - size // 2
    distance = np.hypot(axis[:, None], axis[None, :])
    return _unit_power(_edge(distance, size / 4 if radius is None else radius, 1.0).astype(np.complex128))


def make_probe(kind: str, size: int) -> NDArray[np.complex64]:
    """A probe of the given kind, complex64 [1, N, N] with unit power.

    Raises InputError if the kind is unknown.
    """
    if kind == "zone-plate":
        return zone_plate_probe(size)
    if kind == "disk":
        return disk_probe(size)
    raise InputError(f"probe {kind!r} is unknown, expected one of {', '.join(get_args(ProbeKind))}")


def _edge(distance: NDArray[np.floating], radius: float, softness: float) -> NDArray[np.floating]:
    """1 inside the radius, 0 outside, linear over `softness`."""
    return np.clip((radius - distance) / softness + 0.5, 0, 1)


def _unit_power(field: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
    return (field / np.sqrt(np.sum(np.abs(field) ** 2)))[None].astype(np.complex64)
