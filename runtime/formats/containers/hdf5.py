"""An open HDF5 file; errors name the file, the key and what was expected."""

from __future__ import annotations

import math
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5_links import (
    LinkGuard,
    check_storage,
    dangling_target,
    follow,
    open_hdf5,
)
from ptychonnx.runtime.formats.containers.hdf5_storage import unwritten
from ptychonnx.runtime.formats.containers.single_precision import in_single_precision, of_two_fields
from ptychonnx.runtime.formats.quantities import (
    ENERGY_UNITS,
    LENGTH_UNITS,
    positive_number,
    unit_factor,
    wavelength_of_energy,
)
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.machine import check_memory

__all__ = ["HDF5File", "attribute_text", "attribute_texts", "loaded", "texts"]


# Energies without units are in the unit in which they are those of a photon; between 60 and 200, that of
# extreme ultraviolet in eV or of hard X-rays in keV, nobody can tell.
_PLAUSIBLE_ENERGIES = {"J": (1e-18, 1e-13), "keV": (0.1, 60.0), "eV": (200.0, 2e5)}
# A wavelength and an energy of the same photon agree to within this part.
_SAME_PHOTON = 1e-2


@dataclass(frozen=True)
class HDF5File:
    """An HDF5 file and the options for reading it."""

    # The open file and its name.
    root: h5py.File
    path: Path
    options: ReadOptions  # see `ptychonnx.runtime.formats.read_options`
    stack: ExitStack  # closes every file that is opened along with this one
    notes: list[str] = field(default_factory=list)  # lines for the user about what was assumed
    checked: set[tuple[str, str]] = field(
        default_factory=set
    )  # file and name of datasets whose storage is allowed

    @classmethod
    def open(cls, path: Path, options: ReadOptions, stack: ExitStack) -> HDF5File:
        """Open a file, which `stack` closes."""
        return cls(open_hdf5(path, stack), path, options, stack)

    @property
    def guard(self) -> LinkGuard:
        """Folder that links may lead to."""
        folder = None if self.options.external_links else self.path.parent.resolve()
        return LinkGuard(folder, self.stack)

    def get(self, name: str) -> h5py.Dataset | h5py.Group | None:
        """A dataset or a group; None if there is none, or if a link leads nowhere or to itself.

        Raises InputError if the data lie outside the scan's folder, or the file of a virtual dataset is missing.
        """
        item = follow(self.root, name, self.path, self.guard)
        if isinstance(item, h5py.Dataset) and (key := (item.file.filename, item.name)) not in self.checked:
            check_storage(item, self.path, self.guard)
            self.checked.add(key)
        return item

    def names(self, group: str = "/") -> list[str]:
        """Names in a group; none if there is no such group. A name that is no text in UTF-8 is none of a format."""
        found = self.get(group)
        return [name for name in found if isinstance(name, str)] if isinstance(found, h5py.Group) else []

    def dangling(self, name: str) -> str | None:
        """File and path that a link of this name leads to, if it leads nowhere."""
        return dangling_target(self.root, name) if self.get(name) is None else None

    def load(self, dataset: h5py.Dataset, *, complete: bool = True) -> NDArray:
        """All values of a dataset.

        Raises InputError if they do not fit into memory, or if `complete` and a part of them was never written.
        """
        return loaded(dataset, f"{self.path}: {dataset.name}", complete=complete)

    def has(self, name: str) -> bool:
        """True if a dataset has this name."""
        return isinstance(self.get(name), h5py.Dataset)

    def has_group(self, name: str) -> bool:
        """True if a group has this name."""
        return isinstance(self.get(name), h5py.Group)

    def first(self, *names: str) -> h5py.Dataset | None:
        """The first of these datasets that exists; None if none does.

        Raises InputError if none does, and a link of one of the names leads nowhere.
        """
        if (found := self.existing(*names)) is not None:
            return found
        for name in names:
            if target := self.dangling(name):
                raise InputError(
                    f"{self.path}: {name} is a link that leads nowhere ({target}), expected a dataset"
                )
        return None

    def dataset(self, expected: str, *names: str) -> h5py.Dataset:
        """The first of these datasets that exists.

        Raises InputError if none does.
        """
        if (found := self.existing(*names)) is not None:
            return found
        target = next(filter(None, map(self.dangling, names)), None)
        reason = f" (a link to {target}, which is missing)" if target else ""
        raise InputError(f"{self.path}: no dataset {' or '.join(names)}{reason}, expected {expected}")

    def real(self, expected: str, *names: str) -> NDArray:
        """An array of real numbers or integers, loaded whole."""
        return self._array(expected, names, "fiu")

    def complex(self, expected: str, *names: str) -> NDArray[np.complex64]:
        """An array of complex numbers, loaded whole."""
        dataset = self.dataset(expected, *names)
        if dataset.dtype.names is not None and set(dataset.dtype.names) == {"real", "imag"}:
            # MATLAB's complex numbers; its arrays are column-major, so that images come out transposed.
            values = self.load(dataset, complete=False)
            if values.ndim < 2:
                raise InputError(f"{self.path}: {dataset.name} has shape {values.shape}, expected {expected}")
            return of_two_fields(values, f"{self.path}: {dataset.name}").swapaxes(-1, -2)
        return in_single_precision(self._array(expected, names, "c"), f"{self.path}: {dataset.name}")

    def vectors(self, expected: str, *names: str) -> tuple[NDArray[np.float64], ...]:
        """Datasets of one number per pattern each, float64 [n].

        Raises InputError also if their lengths differ.
        """
        arrays = tuple(self.real(expected, name).astype(np.float64).reshape(-1) for name in names)
        if len({array.shape for array in arrays}) > 1:
            shapes = " and ".join(
                f"{name} {array.shape}" for name, array in zip(names[1:], arrays[1:], strict=True)
            )
            raise InputError(
                f"{self.path}: {names[0]} has shape {arrays[0].shape} and {shapes}, expected [n] for each"
            )
        return arrays

    def good_pixels(self, shape: tuple[int, ...], *names: str, ignored: int = 0) -> NDArray[np.bool_] | None:
        """Pixels whose bits in the first of these datasets are 0, except for those `ignored`; None if there is none.

        Raises InputError if it holds no integers, or has another shape than the frames.
        """
        dataset = self.first(*names)
        if dataset is None:
            return None
        # Some writers keep an axis of length 1 for all frames.
        if dataset.shape[-2:] != shape or dataset.size != math.prod(shape) or dataset.dtype.kind not in "iub":
            raise InputError(
                f"{self.path}: {dataset.name} is {dataset.dtype} of shape {dataset.shape}, expected integers of shape "
                f"{shape}, 0 = good"
            )
        return self.load(dataset).reshape(shape).astype(np.int64) & ~ignored == 0

    def length(self, *names: str) -> float | None:
        """The first of these lengths that exists, in metres, which is the unit without a `units` attribute."""
        return self._quantity(names, LENGTH_UNITS, "one positive length")

    def distance(self, *names: str) -> float | None:
        """As `length`, for the distance of the detector, which some writers count against the beam: it is negative."""
        return self._quantity(names, LENGTH_UNITS, "one length other than 0", against_the_beam=True)

    def wavelength(self, lengths: tuple[str, ...], energies: tuple[str, ...]) -> float | None:
        """The wavelength in metres that the options give, or the first of the `lengths`, or that of the first energy.

        A wavelength and an energy that contradict each other are noted.
        """
        if self.options.wavelength is not None:
            return self.options.wavelength
        stated = self.length(*lengths)
        if stated is None:
            energy = self.energy(*energies)
            return None if energy is None else wavelength_of_energy(energy)
        silent = replace(self, notes=[])
        # An energy may be another one than that of a photon.
        with suppress(InputError):
            energy = silent.energy(*energies)
            other = stated if energy is None else wavelength_of_energy(energy)
            if abs(other - stated) > _SAME_PHOTON * stated:
                self.notes.append(
                    f"wavelength: {stated:.6g} m, but the energy in the file is that of {other:.6g} m: is it "
                    f"--wavelength {other:.6g}?"
                )
        return stated

    def energy(self, *names: str) -> float | None:
        """The first of these energies that exists, in joules.

        Without a `units` attribute the number tells the unit, which is noted unless it is joules.

        Raises InputError if it does not.
        """
        energy, dataset = self._quantity(names, ENERGY_UNITS, "one positive energy"), self.first(*names)
        if energy is None or dataset is None or attribute_text(dataset, "units").strip():
            return energy
        for unit, (low, high) in _PLAUSIBLE_ENERGIES.items():
            if low <= energy <= high:
                if unit != "J":
                    self.notes.append(f"energy: {energy:g} taken as {unit}, since it has no units")
                return energy * ENERGY_UNITS[unit]
        raise InputError(
            f"{self.path}: {dataset.name} is {energy:g} without units, which could be no photon's energy or that of "
            "several, expected an attribute units: --wavelength in metres overrides it"
        )

    def lengths(self, dataset: h5py.Dataset) -> NDArray[np.float64]:
        """A dataset of lengths in metres, converted by its `units` attribute, which may name one for each column."""
        if dataset.dtype.kind not in "fiu":
            raise InputError(f"{self.path}: {dataset.name} is {dataset.dtype}, expected lengths")
        where = f"{self.path}: {dataset.name}"
        names = [name.strip() for name in attribute_texts(dataset, "units")]
        factors = [unit_factor(name, LENGTH_UNITS, where) if name else 1.0 for name in names] or [1.0]
        if len(set(factors)) == 1:
            factors = factors[:1]
        elif not dataset.ndim or len(factors) != dataset.shape[-1]:
            raise InputError(
                f"{where} has shape {dataset.shape} and the units {', '.join(names)}, expected one unit or one for "
                "each column"
            )
        return self.load(dataset).astype(np.float64) * np.array(factors)

    def companion(self, default: str, expected: str) -> HDF5File:
        """The second file: the one that the options name, else `default` in the same folder.

        Raises InputError if there is no such file, or it is not HDF5.
        """
        path = self.options.companion or self.path.with_name(default)
        if not path.is_file():
            raise InputError(
                f"{self.path}: no file {path} next to it, expected {expected}, or another --companion"
            )
        return self.open(path, self.options, self.stack)

    def translations(self, dataset: h5py.Dataset, scanned: tuple[int, ...]) -> NDArray[np.float64]:
        """(x, y) of the sample in metres, [n, 2], of a dataset that may hold more patterns, and z.

        `scanned`: (n,), or (slow, fast) of a raster, whose positions may have two axes too.

        Raises InputError if it has another shape.
        """
        moved = self.lengths(dataset)
        n = math.prod(scanned)
        if moved.ndim == 3 and scanned in ((n,), moved.shape[:2]):
            moved = moved.reshape(-1, moved.shape[2])
        # PyNX writes a row for each axis.
        if moved.ndim == 2 and len(moved) in (2, 3) and moved.shape[1] > 3:
            moved = moved.T
        if moved.ndim != 2 or len(moved) < n or moved.shape[1] not in (2, 3):
            raise self.shape_error(dataset, f"{(n, 3)} or {(n, 2)}, one (x, y, z) in metres for each pattern")
        return moved[:, :2]

    def shape_error(self, dataset: h5py.Dataset, expected: str) -> InputError:
        """The error for a dataset of another shape than expected."""
        return InputError(f"{self.path}: {dataset.name} has shape {dataset.shape}, expected {expected}")

    def existing(self, *names: str) -> h5py.Dataset | None:
        """The first of these datasets that exists; None if none does, wherever links lead."""
        return next((item for item in map(self.get, names) if isinstance(item, h5py.Dataset)), None)

    def _array(self, expected: str, names: tuple[str, ...], kinds: str) -> NDArray:
        dataset = self.dataset(expected, *names)
        if dataset.dtype.kind not in kinds:
            raise InputError(f"{self.path}: {dataset.name} is {dataset.dtype}, expected {expected}")
        return self.load(dataset, complete=kinds != "c")

    def _quantity(
        self,
        names: tuple[str, ...],
        units: dict[str, float],
        expected: str,
        *,
        against_the_beam: bool = False,
    ) -> float | None:
        dataset = self.first(*names)
        if dataset is None:
            return None
        where, unit = f"{self.path}: {dataset.name}", attribute_text(dataset, "units").strip()
        values = self.load(dataset)
        if against_the_beam and values.dtype.kind in "fi" and (values < 0).all():
            values = -values
        number = positive_number(values, where, expected)
        return number * unit_factor(unit, units, where) if unit else number


def attribute_text(item: h5py.Dataset | h5py.Group, name: str, default: str = "") -> str:
    """An attribute as text; an array of strings counts by its first element."""
    return next(iter(attribute_texts(item, name, default)), "")


def attribute_texts(item: h5py.Dataset | h5py.Group, name: str, default: str = "") -> list[str]:
    """An attribute as text, each element of an array of strings; none if it is empty. `unit` stands in for `units`."""
    if name == "units" and name not in item.attrs:
        name = "unit"
    value = item.attrs.get(name, default)
    return [] if isinstance(value, h5py.Empty) else texts(value)


def texts(stored: Any) -> list[str]:
    """Each element of stored text, or of anything else as text."""
    return [
        element.decode("utf-8", "replace") if isinstance(element, bytes) else str(element)
        for element in np.asarray(stored).reshape(-1).tolist()
    ]


def loaded(stored: Any, where: str, *, complete: bool = True) -> NDArray:
    """All values of a dataset or an array; `where` begins the message.

    Raises InputError if they do not fit into memory, or if `complete` and a part of them was never written.
    """
    check_memory(stored.size * stored.dtype.itemsize, where)
    if complete and isinstance(stored, h5py.Dataset) and unwritten(stored, 1).any():
        raise InputError(f"{where} has parts that were never written, expected all {stored.shape}")
    return np.asarray(stored[()])
