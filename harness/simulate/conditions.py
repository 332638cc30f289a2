"""Scans that differ from the training conditions in one respect each, with a known object.

The probe and the positions that a reconstruction assumes are the same in all of them; the measured patterns are not.
Objects and noise come from one seed, so that conditions differ in nothing else.
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

__all__ = ["AXES", "NOMINAL", "Axis", "Condition", "defocused", "simulate_conditions"]

NOMINAL = "nominal"
_LARGEST_IN_SIGMAS = 3


@dataclass(frozen=True)
class Axis:
    """One property that is varied.

    * `meaning`: description with unit.
    * `unit`: unit for the title of a figure.
    * `levels`: values in that unit.
    * `below`: number of levels below the nominal one.
    """

    name: str
    meaning: str
    unit: str
    levels: tuple[float | str, ...]
    below: int = 0

    @property
    def title(self) -> str:
        """Name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


AXES = (
    Axis(
        "photons",
        "photons in a pattern of a transparent object, at an unchanged scale",
        "per pattern",
        (1e9, 1e8, 1e7, 1e6, 1e5, 1e4),
    ),
    Axis(
        "defocus",
        "distance along the beam between the true and the assumed probe, micrometres",
        "µm",
        (5.0, 10.0, 20.0, 40.0),
    ),
    Axis(
        "noise",
        "root mean square of complex noise in the true probe, over that of the assumed probe",
        "relative rms",
        (0.05, 0.1, 0.2, 0.4),
    ),
    Axis(
        "brightness",
        "power of the true probe over that of the assumed probe",
        "relative power",
        (0.5, 0.8, 1.25, 2.0),
        below=2,
    ),
    Axis(
        "positions",
        "standard deviation of unknown position errors along each axis, pixels (rounded to whole pixels)",
        "pixels",
        (0.5, 1.0, 2.0, 4.0),
    ),
    Axis("object", "kind of object; nominally lines", "", ("cells", "star")),
)


_LARGEST_POSITION_ERROR = max(
    float(level) for axis in AXES if axis.name == "positions" for level in axis.levels
)


@dataclass(frozen=True)
class Condition:
    """A simulated scan with its axis and level, or `NOMINAL` and None; `heading` is the level as text."""

    axis: str
    level: float | str | None
    heading: str
    scan: Scan


def simulate_conditions(base: Scan, seed: int = 0) -> list[Condition]:
    """Simulate the nominal scan, then those of every axis.

    Raises InputError if the scan lacks one of these.

    * `base`: scan with positions, probe, pixel size and wavelength; its patterns are not used.
    * `seed`: seed of objects, noise and errors.
    """
    for name, value in (
        ("probe", base.probe),
        ("pixel size", base.pixel_size),
        ("wavelength", base.wavelength),
    ):
        if value is None:
            raise InputError(
                f"{base.name}: has no {name}, expected probe, pixel size and wavelength to simulate from"
            )
    conditions = [Condition(NOMINAL, None, NOMINAL, _simulated(base, NOMINAL, seed))]
    for axis in AXES:
        for level in axis.levels:
            heading = level if isinstance(level, str) else _number(level)
            departure: dict[str, Any] = {axis.name: level}
            scan = _simulated(base, f"{axis.name} {heading}", seed, **departure)
            conditions.append(Condition(axis.name, level, heading, scan))
    return conditions


def _simulated(
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
    """Simulate the scan; parameters that are not passed are nominal."""
    assert base.probe is not None
    object_rng, beam_rng, position_rng, count_rng = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(4)
    )
    margin = _LARGEST_IN_SIGMAS * int(_LARGEST_POSITION_ERROR)
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
        # Counts are scaled to the flux of the assumed probe: fewer photons then only mean more noise.
        diffraction=np.sqrt(counts / exposure).astype(np.float32),
        reference=Reference(image, start),
        labels=None,
        name=name,
    )


def defocused(
    beam: NDArray[np.complexfloating], distance: float, pixel_size: float, wavelength: float
) -> NDArray[np.complex128]:
    """Propagate a beam [..., N, N] by a distance along the axis; all lengths in metres.

    Fresnel propagation as a product with ``exp(-i pi wavelength distance k^2)`` (Goodman, Introduction to Fourier
    Optics, 3rd ed., eq. 4-21), in the field of N pixels with periodic borders.
    """
    k = np.fft.fftfreq(beam.shape[-1], pixel_size)
    phase = -np.pi * wavelength * distance * (k[:, None] ** 2 + k[None, :] ** 2)
    return np.fft.ifft2(np.fft.fft2(beam) * np.exp(1j * phase))


def _number(level: float) -> str:
    """Short notation: 0.05, 40, 1e6."""
    return f"{level:g}" if level < 1e4 else f"{level:.0e}".replace("e+0", "e")
