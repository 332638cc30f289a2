"""An open HDF5 file, asked for datasets; errors name file, key and what was expected."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.read_options import METRES, ReadOptions

__all__ = ["PLANCK_TIMES_LIGHT", "Source"]

PLANCK_TIMES_LIGHT = 1.98644586e-25  # J m
_ELECTRON_VOLT = 1.602176634e-19  # J
_LENGTHS = METRES | {
    "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0, "micron": 1e-6, "microns": 1e-6, "µm": 1e-6,
    "μm": 1e-6, "angstrom": 1e-10, "Å": 1e-10, "A": 1e-10, "pm": 1e-12,
}  # fmt: skip
_ENERGIES = {"j": 1.0, "ev": _ELECTRON_VOLT, "kev": 1e3 * _ELECTRON_VOLT, "joule": 1.0, "joules": 1.0}


@dataclass(frozen=True)
class Source:
    """An HDF5 file and what was said about it.

    Attributes
    ----------
    file, path
        The open file and its name.
    options
        See `ptychonnx.runtime.formats.read_options`.
    stack
        Closes what is opened beside the file, when the scan has been read.
    """

    file: h5py.File
    path: Path
    options: ReadOptions
    stack: ExitStack

    def has(self, name: str) -> bool:
        """True if a dataset has this name; a link that leads nowhere is none."""
        return isinstance(self.file.get(name), h5py.Dataset)

    def first(self, *names: str) -> h5py.Dataset | None:
        """The first dataset that is there."""
        return next((self.file[name] for name in names if self.has(name)), None)

    def dataset(self, expected: str, *names: str) -> h5py.Dataset:
        """Like `first`, but something must be there."""
        found = self.first(*names)
        if found is None:
            raise InputError(f"{self.path}: no dataset {' or '.join(names)}, expected {expected}")
        return found

    def real(self, expected: str, *names: str) -> NDArray:
        """An array of real numbers or integers, loaded whole."""
        found = self.dataset(expected, *names)
        if found.dtype.kind not in "fiu":
            raise InputError(f"{self.path}: {found.name} is {found.dtype}, expected {expected}")
        return found[()]

    def complex(self, expected: str, *names: str) -> NDArray[np.complex64]:
        """An array of complex numbers, loaded whole."""
        found = self.dataset(expected, *names)
        if found.dtype.kind != "c":
            raise InputError(f"{self.path}: {found.name} is {found.dtype}, expected {expected}")
        return found[()].astype(np.complex64)

    def positive(self, value: object, name: str, expected: str) -> float:
        """One positive number, from a dataset or an attribute that holds one."""
        array = np.asarray(value)
        if (
            array.size != 1
            or array.dtype.kind not in "fiu"
            or not (np.isfinite(array).all() and array.item() > 0)
        ):
            raise InputError(f"{self.path}: {name} is {array.tolist()}, expected {expected}")
        return float(array.item())

    def length(self, *names: str) -> float | None:
        """The first length that is there, in metres; without a `units` attribute it is in metres."""
        return self._quantity(names, _LENGTHS, "one positive length", lower=False)

    def energy(self, *names: str) -> float | None:
        """The first energy that is there, in joules; without a `units` attribute it is in joules."""
        return self._quantity(names, _ENERGIES, "one positive energy", lower=True)

    def lengths(self, dataset: h5py.Dataset) -> NDArray[np.float64]:
        """A dataset of lengths in metres, by its `units` attribute."""
        if dataset.dtype.kind not in "fiu":
            raise InputError(f"{self.path}: {dataset.name} is {dataset.dtype}, expected lengths")
        return dataset[()].astype(np.float64) * self._scale(dataset, _LENGTHS, lower=False)

    def beside(self, default: str, expected: str) -> Source:
        """The second file: the one that the options name, else `default` in the same folder."""
        path = self.options.companion or self.path.with_name(default)
        if not path.is_file():
            raise InputError(
                f"{self.path}: no file {path} beside it, expected {expected}, or another --companion"
            )
        if not h5py.is_hdf5(path):
            raise InputError(f"{path}: no HDF5 file, expected {expected}")
        return Source(self.stack.enter_context(h5py.File(path, "r")), path, self.options, self.stack)

    def _quantity(
        self, names: tuple[str, ...], scales: dict[str, float], expected: str, *, lower: bool
    ) -> float | None:
        found = self.first(*names)
        if found is None:
            return None
        return self.positive(found[()], found.name, expected) * self._scale(found, scales, lower=lower)

    def _scale(self, dataset: h5py.Dataset, scales: dict[str, float], *, lower: bool) -> float:
        unit = dataset.attrs.get("units", "")
        text = (
            unit.decode()
            if isinstance(unit, bytes)
            else str(np.asarray(unit).reshape(-1)[0] if unit is not None else "")
        )
        text = text.strip()
        if not text:
            return 1.0
        scale = scales.get(text.lower() if lower else text)
        if scale is None:
            raise InputError(
                f"{self.path}: {dataset.name} is in {text!r}, expected one of {', '.join(scales)}"
            )
        return scale
