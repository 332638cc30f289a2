"""Lengths, photon energies and wavelengths: the units that files use, and conversion."""

from __future__ import annotations

import unicodedata

import numpy as np
from scipy import constants

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.read_options import METRES

__all__ = [
    "ANGLE_UNITS",
    "ENERGY_UNITS",
    "LENGTH_UNITS",
    "energy_of_wavelength",
    "positive_number",
    "unit_factor",
    "wavelength_of_energy",
]

# Names as they occur in `units` attributes, in metres and joules.
LENGTH_UNITS = METRES | {
    "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0, "micron": 1e-6, "microns": 1e-6, "µm": 1e-6,
    "μm": 1e-6, "millimeter": 1e-3, "micrometer": 1e-6, "nanometer": 1e-9,
    "angstrom": constants.angstrom, "ang": constants.angstrom, "Å": constants.angstrom, "A": constants.angstrom,
    "pm": 1e-12,
}  # fmt: skip
ENERGY_UNITS = {
    "J": 1.0, "joule": 1.0, "eV": constants.eV, "ev": constants.eV, "EV": constants.eV, "keV": 1e3 * constants.eV,
    "electronvolt": constants.eV, "kiloelectronvolt": 1e3 * constants.eV,
}  # fmt: skip

# Values for each pattern that differ by less are one number.
_SAME = 1e-3
# In radians.
ANGLE_UNITS = {
    "deg": np.pi / 180, "degree": np.pi / 180, "°": np.pi / 180, "rad": 1.0, "radian": 1.0, "mrad": 1e-3, "urad": 1e-6,
}  # fmt: skip


def unit_factor(name: str, units: dict[str, float], where: str) -> float:
    """Size of a unit in metres, joules or radians; words also in capitals, in the plural and as British write them.

    Raises InputError, which begins with `where`, if none of the `units` has that name.
    """
    # The sign of micro and that of angstrom have two codes each.
    name = unicodedata.normalize("NFKC", name)
    if name in units:
        return units[name]
    words = {known.lower(): factor for known, factor in units.items() if len(known) > 2}
    factor = words.get(name.lower().removesuffix("s").replace("metre", "meter"))
    if factor is None:
        raise InputError(f"{where} is in {name!r}, expected one of {', '.join(units)}")
    return factor


def wavelength_of_energy(energy: float) -> float:
    """Wavelength in metres of a photon of `energy` joules."""
    return constants.h * constants.c / energy


def energy_of_wavelength(wavelength: float) -> float:
    """Energy in joules of a photon of `wavelength` metres."""
    return constants.h * constants.c / wavelength


def positive_number(value: object, where: str, expected: str) -> float:
    """One finite number above zero, from a scalar or an array that holds one; the mean of several that are the same.

    Some programs write a number for each pattern, or for each axis.

    Raises InputError if `value` is anything else; `where` (file and key) begins the message.
    """
    array = np.asarray(value)
    if not array.size or array.dtype.kind not in "fiu" or not ((array > 0) & np.isfinite(array)).all():
        shown = array.tolist() if array.size <= 4 else f"an array of shape {array.shape}"
        raise InputError(f"{where} is {shown}, expected {expected}")
    lowest, highest = float(array.min()), float(array.max())
    if highest - lowest > _SAME * lowest:
        raise InputError(f"{where} varies from {lowest:g} to {highest:g}, expected {expected}")
    return float(np.mean(array, dtype=np.float64))
