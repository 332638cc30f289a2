"""Scans that depart, one thing at a time, from what a network was trained for, with a known object each.

What the reconstruction believes, the probe and the positions of the scan, is the same in all of them; what is measured
is not. Objects and noise come from one seed, so that conditions differ in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward, window_corners

__all__ = ["AXES", "NOMINAL", "Axis", "Condition", "conditions", "defocused"]

NOMINAL = "nominal"
_LARGEST_IN_SIGMAS = 3


@dataclass(frozen=True)
class Axis:
    """One thing that is varied: its name, what it is in words, its levels in that unit, and how many of them stand
    before the nominal one.
    """

    name: str
    meaning: str
    levels: tuple[float | str, ...]
    below: int = 0


AXES = (
    Axis(
        "photons",
        "photons in a pattern of an empty object, at an unchanged scale",
        (1e9, 1e8, 1e7, 1e6, 1e5, 1e4),
    ),
    Axis(
        "defocus",
        "distance along the axis between the beam and the known probe, micrometres",
        (5.0, 10.0, 20.0, 40.0),
    ),
    Axis(
        "noise",
        "root mean square of a complex noise in the beam that the known probe has not, over that of the probe",
        (0.05, 0.1, 0.2, 0.4),
    ),
    Axis("brightness", "power of the beam over that of the known probe", (0.5, 0.8, 1.25, 2.0), below=2),
    Axis(
        "positions",
        "standard deviation of unknown errors of position along each axis, pixels (rounded to whole ones)",
        (0.5, 1.0, 2.0, 4.0),
    ),
    Axis("object", "kind of object; nominal is lines", ("cells", "star")),
)


@dataclass(frozen=True)
class Condition:
    """A scan, and where it stands: axis and level, or `NOMINAL` and None; the heading is the level in text."""

    axis: str
    level: float | str | None
    heading: str
    scan: Scan


def conditions(base: Scan, seed: int = 0) -> list[Condition]:
    """The nominal scan, then those of every axis.

    Parameters
    ----------
    base
        Gives positions, probe, pixel size and wavelength; its patterns are not used.
    seed
        Of objects, noise and errors.

    Raises
    ------
    InputError
        If the scan lacks one of these.
    """
    for name, value in (
        ("probe", base.probe),
        ("pixel size", base.pixel_size),
        ("wavelength", base.wavelength),
    ):
        if value is None:
            raise InputError(
                f"{base.name}: has no {name}, which the conditions of measurement are simulated from"
            )
    made = [Condition(NOMINAL, None, NOMINAL, _measured(base, NOMINAL, seed))]
    for axis in AXES:
        for level in axis.levels:
            heading = level if isinstance(level, str) else _number(level)
            departure: dict[str, Any] = {axis.name: level}
            scan = _measured(base, f"{axis.name} {heading}", seed, **departure)
            made.append(Condition(axis.name, level, heading, scan))
    return made


def _measured(
    base: Scan,
    name: str,
    seed: int,
    *,
    photons: float | None = None,
    defocus: float = 0.0,
    noise: float = 0.0,
    brightness: float = 1.0,
    positions: float = 0.0,
    object: str = "lines",
) -> Scan:
    """Simulate the scan; whatever is not given is nominal."""
    assert base.probe is not None
    object_rng, beam_rng, position_rng, count_rng = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(4)
    )
    margin = _LARGEST_IN_SIGMAS * int(max(_levels("positions")))
    corners = np.rint(window_corners(base.positions, base.size)).astype(int)
    origin = corners.min(axis=0) - margin
    shape = corners.max(axis=0) + base.size + margin - origin
    image = make_object(object, (int(shape[0]), int(shape[1])), object_rng)
    start = (float(origin[0]), float(origin[1]))

    beam = np.sqrt(brightness) * base.probe.astype(np.complex128)
    if defocus:
        assert base.pixel_size is not None
        assert base.wavelength is not None
        beam = defocused(beam, defocus * 1e-6, base.pixel_size, base.wavelength)
    grain = beam_rng.normal(size=beam.shape) + 1j * beam_rng.normal(size=beam.shape)
    beam = beam + noise * grain * np.sqrt(np.mean(np.abs(beam) ** 2) / 2)
    limit = _LARGEST_IN_SIGMAS * positions
    errors = np.clip(positions * position_rng.normal(size=base.positions.shape), -limit, limit)

    windows = cut_windows(image, base.positions + errors, base.size, start)
    power = float(np.sum(np.abs(base.probe) ** 2))
    exposure = 1.0 if photons is None else photons / power
    counts = count_rng.poisson(exposure * forward(windows, beam) ** 2)
    return replace(
        base,
        # Few photons, shown at the scale of the known probe: fewer photons are nothing but noise.
        diffraction=np.sqrt(counts / exposure).astype(np.float32),
        reference=Reference(image, start),
        labels=None,
        name=name,
    )


def defocused(
    beam: NDArray[np.complexfloating], distance: float, pixel_size: float, wavelength: float
) -> NDArray[np.complex128]:
    """A beam [..., N, N] a distance further along the axis, all lengths in metres.

    Fresnel propagation as a product with ``exp(-i pi wavelength distance k^2)`` (Goodman, Introduction to Fourier
    Optics, 3rd ed., eq. 4-21), in the field of N pixels: what leaves it on one side comes back on the other.
    """
    k = np.fft.fftfreq(beam.shape[-1], pixel_size)
    phase = -np.pi * wavelength * distance * (k[:, None] ** 2 + k[None, :] ** 2)
    return np.fft.ifft2(np.fft.fft2(beam) * np.exp(1j * phase))


def _number(level: float) -> str:
    """As people write it: 0.05, 40, 1e6."""
    return f"{level:g}" if level < 1e4 else f"{level:.0e}".replace("e+0", "e")


def _levels(name: str) -> tuple[float, ...]:
    (axis,) = (axis for axis in AXES if axis.name == name)
    return tuple(float(level) for level in axis.levels)
