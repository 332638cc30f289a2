"""Families of beams: fields of different optics, drawn at random, complex64 [modes, N, N] with unit power.

Lengths are in pixels of the object and frequencies in cycles per pixel, so that a family means the same at every N: a
beam fills about the same part of its window, and of the detector. Every beam is drawn in a field four times as wide as
the window, so that its tails do not wrap around, and cut to the window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon2mask
from skimage.filters import gaussian

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.forward_model import illumination

__all__ = ["BeamFamily", "beam_diameter", "draw_beam"]

BeamFamily = Literal[
    "zone-plate",
    "zone-plate-open",
    "kb",
    "pinhole",
    "defocused",
    "aberrated",
    "structured",
    "gaussian",
    "vortex",
    "axicon",
    "cubic",
    "triangle",
]

_FIELD_FACTOR = 4
# Largest angle of the rays, over the highest frequency of the detector.
_APERTURES = (0.16, 0.5)
# Radius of the beam by defocus alone, over N.
_BLUR = (0.14, 0.27)
_STRONG_BLUR = (0.28, 0.36)
_RADIUS = (0.15, 0.3)
# Source of a partially coherent beam: standard deviation of its image, over the diameter of the beam.
_SOURCE = (0.02, 0.08)
_SOURCE_POINTS = 5
_ENCIRCLED = 0.9

Field = NDArray[np.complex128]


def draw_beam(family: str, size: int, modes: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    """Draw a beam of a family.

    Raises InputError if the family is unknown.

    * `family`: see `BeamFamily`.
    * `size`: N, pixels.
    * `modes`: number of incoherent modes. More than one is a beam of a source of finite size: the sum of intensities of
      displaced beams, whose strongest orthogonal modes are kept.
    * `rng`: source of all random numbers; the same state gives the same beam.

    Returns complex64 [modes, N, N], sum of |P|^2 = 1, the strongest mode first.
    """
    if family not in _FAMILIES:
        raise InputError(f"beam {family!r} is unknown, expected one of {', '.join(get_args(BeamFamily))}")
    field = _centred(_FAMILIES[family](size, rng))
    if modes > 1:
        fields = _modes(field, modes, rng.uniform(*_SOURCE) * beam_diameter(_window(field, size)), rng)
    else:
        fields = field[None]
    beam = _window(fields, size)
    return (beam / np.sqrt(np.sum(np.abs(beam) ** 2))).astype(np.complex64)


def beam_diameter(beam: NDArray[np.complexfloating]) -> float:
    """Diameter in pixels of the circle about the centre of gravity that 90 % of the power of a beam [modes, N, N] or
    [N, N] falls into.
    """
    size = beam.shape[-1]
    density = illumination(beam.reshape(-1, size, size))
    density /= density.sum()
    axis = np.arange(size)
    row, column = density.sum(axis=1) @ axis, density.sum(axis=0) @ axis
    distance = np.hypot(axis[:, None] - row, axis - column).ravel()
    order = np.argsort(distance)
    last = np.searchsorted(np.cumsum(density.ravel()[order]), _ENCIRCLED)
    return float(2 * distance[order][min(last, len(order) - 1)])


def _zone_plate(size: int, rng: np.random.Generator, stop: float, blur: float) -> Field:
    """Annular pupil at a distance from its focus, on either side."""
    cutoff = 0.5 * rng.uniform(*_APERTURES)
    rows, columns = _frequencies(size)
    radius = np.hypot(rows, columns)
    pupil = _disk(radius, cutoff, size) - _disk(radius, cutoff * stop, size)
    return _focus(pupil * _defocus(rows, columns, cutoff, blur * size * rng.choice((-1, 1))))


def _kb(size: int, rng: np.random.Generator) -> Field:
    """Rectangular pupil of two mirrors, whose apertures and foci differ."""
    rows, columns = _frequencies(size)
    pupil: NDArray = np.ones((1, 1))
    side = rng.choice((-1, 1))
    for k in (rows, columns):
        cutoff = 0.5 * rng.uniform(*_APERTURES)
        blur = side * size * rng.uniform(0.75, 1.0) * rng.uniform(*_BLUR)
        pupil = pupil * _disk(np.abs(k), cutoff, size) * _defocus(k, 0 * k, cutoff, blur)
    return _focus(pupil)


def _pinhole(size: int, rng: np.random.Generator) -> Field:
    """A round aperture, a short distance downstream: Fresnel numbers from 8 to 100."""
    radius = size * rng.uniform(*_RADIUS)
    return _downstream(_disk(_distance(size), radius, 0), radius, rng)


def _aberrated(size: int, rng: np.random.Generator) -> Field:
    """An open pupil with defocus, astigmatism, coma, trefoil and spherical aberration."""
    cutoff = 0.5 * rng.uniform(*_APERTURES)
    rows, columns = _frequencies(size)
    rho, angle = np.hypot(rows, columns) / cutoff, np.arctan2(rows, columns)
    tilt = rng.uniform(0, 2 * np.pi, 3)
    shapes = (
        rho**2 * np.cos(2 * (angle - tilt[0])),
        (3 * rho**3 - 2 * rho) * np.cos(angle - tilt[1]),
        rho**3 * np.cos(3 * (angle - tilt[2])),
        6 * rho**4 - 6 * rho**2 + 1,
    )
    # Radians at the rim: about a wave in all.
    phase = sum(strength * shape for strength, shape in zip(rng.normal(0, 1.5, 4), shapes, strict=True))
    blur = size * rng.uniform(*_BLUR) * rng.choice((-1, 1))
    pupil = _disk(rho, 1.0, size * cutoff)
    return _focus(pupil * np.exp(1j * phase * pupil) * _defocus(rows, columns, cutoff, blur))


def _structured(size: int, rng: np.random.Generator) -> Field:
    """A pinhole behind a diffuser, whose random phase is smooth over a few pixels."""
    radius = size * rng.uniform(*_RADIUS)
    grain = gaussian(rng.normal(size=(_FIELD_FACTOR * size,) * 2), sigma=rng.uniform(2.0, 5.0))
    phase = rng.uniform(0.7, 2.0) * grain / grain.std()
    return _downstream(_disk(_distance(size), radius, 0) * np.exp(1j * phase), radius, rng)


def _gaussian(size: int, rng: np.random.Generator) -> Field:
    """A Gaussian beam with a curved wavefront."""
    distance, waist = _distance(size), size * rng.uniform(0.13, 0.22)
    return np.exp(-((distance / waist) ** 2) * (1 + 1j * rng.uniform(-4, 4)))


def _vortex(size: int, rng: np.random.Generator) -> Field:
    """A spiral zone plate: the phase of the pupil rises by one or two waves around the axis."""
    cutoff = 0.5 * rng.uniform(*_APERTURES)
    rows, columns = _frequencies(size)
    pupil = _disk(np.hypot(rows, columns), cutoff, size) * np.exp(
        1j * rng.choice((-2, -1, 1, 2)) * np.arctan2(rows, columns)
    )
    return _focus(pupil * _defocus(rows, columns, cutoff, size * rng.uniform(*_BLUR)))


def _axicon(size: int, rng: np.random.Generator) -> Field:
    """A conical lens: a ring of light."""
    cutoff = 0.5 * rng.uniform(0.25, 0.5)
    rows, columns = _frequencies(size)
    radius = np.hypot(rows, columns)
    ring = size * rng.uniform(0.14, 0.22)
    return _focus(_disk(radius, cutoff, size) * np.exp(-2j * np.pi * ring * radius))


def _cubic(size: int, rng: np.random.Generator) -> Field:
    """An Airy beam: a pupil of cubic phase along both axes."""
    cutoff = 0.5 * rng.uniform(0.25, 0.5)
    rows, columns = _frequencies(size)
    # The slope of the phase at the rim displaces light by this many pixels.
    blur = size * rng.uniform(0.25, 0.4)
    phase = 2 * np.pi * blur / (3 * cutoff**2) * (rows**3 + columns**3)
    return _focus(_disk(np.hypot(rows, columns), cutoff, size) * np.exp(1j * phase))


def _triangle(size: int, rng: np.random.Generator) -> Field:
    """A triangular aperture, a short distance downstream."""
    radius, centre = size * rng.uniform(0.24, 0.36), _FIELD_FACTOR * size // 2
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi / 3 * np.arange(3)
    corners = centre + radius * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    mask = polygon2mask((_FIELD_FACTOR * size,) * 2, corners).astype(np.float64)
    return _downstream(gaussian(mask, sigma=0.7), radius, rng)


_FAMILIES: dict[str, Callable[[int, np.random.Generator], Field]] = {
    "zone-plate": lambda size, rng: _zone_plate(size, rng, rng.uniform(0.2, 0.45), rng.uniform(*_BLUR)),
    "zone-plate-open": lambda size, rng: _zone_plate(size, rng, 0.0, rng.uniform(*_BLUR)),
    "kb": _kb,
    "pinhole": _pinhole,
    # With or without a stop, and so far out of focus that the beam fills much of its window.
    "defocused": lambda size, rng: _zone_plate(
        size, rng, rng.choice((0.0, 0.33)), rng.uniform(*_STRONG_BLUR)
    ),
    "aberrated": _aberrated,
    "structured": _structured,
    "gaussian": _gaussian,
    "vortex": _vortex,
    "axicon": _axicon,
    "cubic": _cubic,
    "triangle": _triangle,
}


def _frequencies(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies along rows and columns, in cycles per pixel; DC in the corner."""
    k = np.fft.fftfreq(_FIELD_FACTOR * size).astype(np.float64)
    return k[:, None], k[None, :]


def _distance(size: int) -> NDArray[np.float64]:
    axis = np.arange(_FIELD_FACTOR * size) - _FIELD_FACTOR * size // 2
    return np.hypot(axis[:, None], axis)


def _disk(distance: NDArray, radius: float, per_unit: float) -> NDArray[np.float64]:
    """1 inside the radius, 0 outside, with an edge one sample wide; `per_unit` is 0 for distances in pixels."""
    softness = 1 / (_FIELD_FACTOR * per_unit) if per_unit else 1.0
    return np.clip((radius - distance) / softness + 0.5, 0, 1)


def _defocus(rows: NDArray, columns: NDArray, cutoff: float, blur: float) -> Field:
    """Phase of a pupil that spreads the focus to a radius of `blur` pixels.

    Defocus by z is ``exp(-i pi lambda z k^2)`` (Goodman, Introduction to Fourier Optics, 3rd ed., eq. 4-21), whose
    outermost ray is displaced by ``lambda z cutoff`` = `blur`.
    """
    return np.exp(-1j * np.pi * blur / cutoff * (rows**2 + columns**2))


def _focus(pupil: NDArray) -> Field:
    return np.fft.fftshift(np.fft.ifft2(pupil))


def _downstream(aperture: NDArray, radius: float, rng: np.random.Generator) -> Field:
    """The field behind an aperture at the distance z of a Fresnel number radius^2 / (lambda z)."""
    fresnel_number = np.exp(rng.uniform(np.log(8), np.log(100)))
    k = np.fft.fftfreq(len(aperture))
    phase = -np.pi * radius**2 / fresnel_number * (k[:, None] ** 2 + k**2)
    return np.fft.ifft2(np.fft.fft2(aperture) * np.exp(1j * phase))


def _centred(field: Field) -> Field:
    """The field with its centre of gravity on the central pixel, to the nearest whole pixel."""
    density = np.abs(field) ** 2
    density /= density.sum()
    axis = np.arange(len(field))
    row, column = density.sum(axis=1) @ axis, density.sum(axis=0) @ axis
    centre = len(field) // 2
    return np.roll(field, (centre - round(float(row)), centre - round(float(column))), axis=(0, 1))


def _modes(field: Field, modes: int, blur: float, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Strongest orthogonal modes [modes, N, N] of a beam whose source is imaged to a Gaussian blur in pixels.

    Every point of the source contributes a displaced beam, incoherent with the others (Thibault and Menzel, Nature 494,
    68 (2013)). The Gaussian is elliptical, and sampled on a grid.
    """
    axis = np.linspace(-2, 2, _SOURCE_POINTS)
    ratio, k = rng.uniform(0.3, 1.0), np.fft.fftfreq(len(field))
    spectrum = np.fft.fft2(field)
    displaced = []
    for row in axis:
        for column in axis:
            weight = np.exp(-(row**2 + column**2) / 4)
            ramp = np.exp(-2j * np.pi * blur * (row * k[:, None] + ratio * column * k))
            displaced.append(weight * np.fft.ifft2(spectrum * ramp).ravel())
    stack = np.array(displaced)
    # Modes are the eigenvectors of the mutual intensity, found through the small Gram matrix.
    power, mixing = np.linalg.eigh(stack @ stack.conj().T)
    strongest = np.argsort(power)[::-1][:modes]
    return (mixing[:, strongest].conj().T @ stack).reshape(modes, *field.shape)


def _window(fields: NDArray, size: int) -> NDArray:
    start = fields.shape[-1] // 2 - size // 2
    return fields[..., start : start + size, start : start + size]
