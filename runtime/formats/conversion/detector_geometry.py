"""Where a CXI file puts its detector, and what that makes of the sample's positions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = ["Geometry"]

_INSTRUMENT = "entry_1/instrument_1"
_DETECTOR = f"{_INSTRUMENT}/detector_1"
_PLANCK_TIMES_LIGHT = 1.98644586e-25  # J m
# 1 mm and 1 fm enclose every wave that diffracts from a sample: outside, the unit is another one.
_WAVELENGTHS = (1e-15, 1e-3)


@dataclass(frozen=True)
class Geometry:
    """Far-field geometry of a scan.

    Attributes
    ----------
    wavelength, pixel_size
        Of the radiation and of the object, in metres.
    basis
        float64 [2, 3], unit vectors (x, y, z) to the next row and to the next column, in the CXI frame.
    """

    wavelength: float
    pixel_size: float
    basis: NDArray[np.float64]

    @classmethod
    def from_file(cls, file: h5py.File, path: Path, size: int) -> Geometry:
        """Read wavelength, distance and detector pixels for patterns of `size` pixels.

        Raises
        ------
        InputError
            If one of them is missing or not positive, or the detector's pixels are not square.
        """
        wavelength = _wavelength(file, path)
        distance = _positive(file, path, (f"{_DETECTOR}/distance",))
        if distance is None:
            raise InputError(f"{path}: no dataset {_DETECTOR}/distance, expected metres")
        across = _positive(file, path, (f"{_DETECTOR}/x_pixel_size", f"{_DETECTOR}/y_pixel_size"))
        down = _positive(file, path, (f"{_DETECTOR}/y_pixel_size", f"{_DETECTOR}/x_pixel_size"))
        if across is None or down is None:
            raise InputError(f"{path}: no dataset {_DETECTOR}/x_pixel_size or y_pixel_size, expected metres")
        if not np.isclose(across, down, rtol=1e-3):
            raise InputError(f"{path}: detector pixels are {across:g} x {down:g} m, expected square ones")
        return cls(wavelength, wavelength * distance / (size * across), _basis(file, path))

    def moved(self, translation: NDArray) -> NDArray[np.float64]:
        """Where windows lie along (rows, columns) in metres, [n, 2], from the sample's translations [n, 2 or 3]."""
        return -(np.asarray(translation, dtype=np.float64)[:, :2] @ self.basis[:, :2].T)


def _positive(file: h5py.File, path: Path, names: tuple[str, ...]) -> float | None:
    for name in names:
        if not isinstance(file.get(name), h5py.Dataset):
            continue
        value = np.asarray(file[name][()])
        if (
            value.size != 1
            or value.dtype.kind not in "fiu"
            or not (np.isfinite(value).all() and value.item() > 0)
        ):
            raise InputError(f"{path}: {name} is {value.tolist()}, expected one positive number in SI units")
        return float(value.item())
    return None


def _wavelength(file: h5py.File, path: Path) -> float:
    names = (f"{_INSTRUMENT}/beam_1/incident_wavelength", f"{_INSTRUMENT}/source_1/wavelength")
    energies = (f"{_INSTRUMENT}/beam_1/incident_energy", f"{_INSTRUMENT}/source_1/energy")
    wavelength = _positive(file, path, names)
    if wavelength is None:
        energy = _positive(file, path, energies)
        if energy is None:
            raise InputError(f"{path}: no dataset {' or '.join(names + energies)}, expected metres or joules")
        wavelength = _PLANCK_TIMES_LIGHT / energy
    low, high = _WAVELENGTHS
    if not low < wavelength < high:
        raise InputError(
            f"{path}: the wavelength comes out as {wavelength:g} m, expected {low:g} to {high:g}: are "
            "wavelength and energy in metres and joules?"
        )
    return wavelength


def _basis(file: h5py.File, path: Path) -> NDArray[np.float64]:
    name = f"{_DETECTOR}/basis_vectors"
    if not isinstance(file.get(name), h5py.Dataset):
        return np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    basis = np.asarray(file[name][()], dtype=np.float64)
    if basis.shape == (3, 2):
        basis = basis.T
    lengths = np.linalg.norm(basis, axis=-1, keepdims=True)
    if basis.shape != (2, 3) or not np.isfinite(basis).all() or not (lengths > 0).all():
        raise InputError(
            f"{path}: {name} has shape {basis.shape}, expected two vectors (x, y, z), [2, 3] or [3, 2]"
        )
    return basis / lengths
