"""Far-field geometry: the object pixel size that wavelength, distance and detector pixels determine."""

from __future__ import annotations

import numpy as np

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File

__all__ = ["check_wavelength", "object_pixel_size"]

# 1 mm and 0.3 pm, that of electrons of 4 MeV, enclose every wave that diffracts from a sample: outside, the unit is
# another one.
_WAVELENGTHS = (3e-13, 1e-3)


def object_pixel_size(
    file: HDF5File, detector: str, wavelength: float | None, size: int, step: float | None = None
) -> float | None:
    """Object pixel size in metres for patterns of `size` pixels: ``wavelength * distance / (size * detector pixel)``.

    Raises InputError if one of them is not a positive length, the detector's pixels are not square, or `step`
    contradicts them.

    * `detector`: group with `distance`, `x_pixel_size` and `y_pixel_size`; one of the two sizes is enough.
    * `step`: side of the detector's pixels by its basis vectors, in metres; None if they are directions only.

    Returns None if the wavelength, the distance or the detector pixel is unknown.
    """
    distance = file.distance(f"{detector}/distance")
    across = file.length(f"{detector}/x_pixel_size", f"{detector}/y_pixel_size") or step
    down = file.length(f"{detector}/y_pixel_size", f"{detector}/x_pixel_size") or step
    if wavelength is None or distance is None or across is None or down is None:
        return None
    if not np.isclose(across, down, rtol=1e-3, atol=0):
        raise InputError(f"{file.path}: detector pixels are {across:g} x {down:g} m, expected square ones")
    if step is not None and not np.isclose(across, step, rtol=1e-2, atol=0):
        raise InputError(
            f"{file.path}: detector pixels are {across:g} m, but its basis vectors {step:g} m long, expected the same"
        )
    return wavelength * distance / (size * across)


def check_wavelength(wavelength: float, where: str) -> float:
    """The wavelength itself.

    Raises InputError if no wave that diffracts from a sample has this wavelength, so that it cannot be in metres.
    """
    low, high = _WAVELENGTHS
    if not low < wavelength < high:
        raise InputError(
            f"{where}: the wavelength comes out as {wavelength:g} m, expected {low:g} to {high:g}: are wavelength and "
            "energy in metres and joules?"
        )
    return wavelength
