"""Arrays that a mapping names, in HDF5, NPZ, NPY and text files."""

from __future__ import annotations

import fnmatch
import glob
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File, attribute_texts, loaded
from ptychonnx.runtime.formats.containers.npz import Archive, is_archive, is_npy, load_npy, open_archive
from ptychonnx.runtime.formats.containers.stacks import ConcatenatedStack
from ptychonnx.runtime.formats.containers.text_table import TextTable, read_text_table
from ptychonnx.runtime.formats.containers.tiff import read_tiff
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.paths import in_order

__all__ = ["MappedArrays"]

# Groups in which EPICS' area detector keeps its attributes.
_NUMBERS = (
    "entry/instrument/NDAttributes",
    "entry/instrument/detector/NDAttributes",
    "entry/NDAttributes",
    "defaults",
)
_IMAGE_FILES = {".tif", ".tiff"}
_ARRAY_FILES = {".npy", ".csv", ".tsv", ".txt", ".dat"}


class MappedArrays:
    """Arrays by the keys of the mapping; each file is opened once."""

    def __init__(self, path: Path, names: dict[str, str], options: ReadOptions, stack: ExitStack) -> None:
        self.path, self.names = path, names
        self._options, self._stack = options, stack
        self._open: dict[Path, HDF5File | Archive] = {}
        self._tables: dict[Path, TextTable] = {}
        self._units: dict[str, list[str]] = {}
        self.notes: list[str] = []
        # Number of patterns, once it is known.
        self.length: int | None = None

    def __contains__(self, key: str) -> bool:
        return key in self.names

    def where(self, key: str) -> str:
        """File and name, for messages."""
        return f"{self.path}: {self.names[key]}"

    def find(self, key: str, expected: str, *, large: bool = False) -> Any:
        """An HDF5 dataset, still in its file, or an array; a `large` one is memory-mapped where possible."""
        return self._found(key, self.names[key], expected, large=large)

    def _found(self, key: str, name: str, expected: str, *, large: bool) -> Any:
        neighbour = self.path.parent / name
        if neighbour.suffix.lower() in _IMAGE_FILES and neighbour.is_file():
            return read_tiff(neighbour, expected)
        if neighbour.suffix.lower() in _ARRAY_FILES and neighbour.is_file():
            return (
                load_npy(neighbour, expected) if is_npy(neighbour) else self.table(neighbour, expected).values
            )
        path = self.path
        file_name, colon, rest = name.partition(":")
        if files := self._files(file_name):
            return self._joined(key, [f"{one}{colon}{rest}" for one in files], expected, large=large)
        if colon and (self.path.parent / file_name).is_file():
            path, name = self.path.parent / file_name, rest
            if path.suffix.lower() in _ARRAY_FILES and not is_npy(path):
                table = self.table(path, expected)
                return _column(table.values, table.names, name, f"{path}", expected)
        if path not in self._open:
            self._open[path] = self._opened(path, expected)
        container = self._open[path]
        if isinstance(container, Archive):
            return container.stack(name, expected) if large else container.array(name, expected)
        if large and not container.has(name) and (parts := self._parts(container, name)):
            return parts[0] if len(parts) == 1 else ConcatenatedStack(parts)
        array_name, colon, column = name.rpartition(":")
        if not container.has(name) and colon and container.has(array_name):
            array = container.get(array_name)
            names = (array.dtype.names or ()) if isinstance(array, h5py.Dataset) else ()
            stored = self.load(key, array)
            # Some programs write a row for each axis.
            if stored.ndim == 2 and stored.shape[1] == self.length != len(stored):
                stored = stored.T
            values = _column(stored, names, column, f"{path}: {array_name}", expected)
            units = attribute_texts(array, "units") if isinstance(array, h5py.Dataset) else []
            number = names.index(column) if column in names else int(column)
            self._units[key] = units[number : number + 1] if len(units) > 1 else units
            return values
        if not container.has(name):
            raise InputError(
                f"{path}: no dataset {name}, expected {expected} (the file has {', '.join(sorted(container.names()))})"
            )
        return container.get(name)

    def load(self, key: str, array: Any) -> NDArray:
        """All values of an array that `find` returned."""
        return loaded(array, self.where(key))

    def units(self, key: str, array: Any) -> list[str]:
        """The attribute `units` of an array that `find` returned, or of the one that it is a column of."""
        return (
            attribute_texts(array, "units") if isinstance(array, h5py.Dataset) else self._units.get(key, [])
        )

    def table(self, path: Path, expected: str) -> TextTable:
        """A text file, read once."""
        if path not in self._tables:
            self._tables[path] = read_text_table(path, expected)
        return self._tables[path]

    def names_of(self, key: str) -> tuple[str, ...]:
        """Names of the columns, if the array is a text file with a line of them."""
        table = self._tables.get(self.path.parent / self.names[key])
        return () if table is None else table.names

    def frame_numbers(self, patterns: Any, n: int) -> NDArray[np.intp]:
        """Numbers of the n patterns from 0, as area detectors count frames that they lose too; 0 to n - 1 without."""
        if isinstance(patterns, h5py.Dataset):
            # A master file may lead to that of the detector.
            file = HDF5File(patterns.file, self.path, self._options, self._stack)
            for place in _NUMBERS:
                numbers = file.get(f"{place}/NDArrayUniqueId")
                if isinstance(numbers, h5py.Dataset) and numbers.size == n and numbers.dtype.kind in "iu":
                    values = file.load(numbers).astype(np.intp).reshape(-1)
                    return values - values.min() if len(np.unique(values)) == n else np.arange(n)
        return np.arange(n)

    def _files(self, pattern: str) -> list[str]:
        """Files next to the scan's that a pattern of names such as line_*.h5 means, in the order of their numbers."""
        if not glob.has_magic(pattern) or (self.path.parent / pattern).is_file():
            return []
        # Other than `Path.glob`, this takes a pattern with an absolute path.
        names = glob.glob(pattern, root_dir=self.path.parent)  # noqa: PTH207
        return in_order(name for name in names if (self.path.parent / name).is_file())

    def _joined(self, key: str, names: list[str], expected: str, *, large: bool) -> Any:
        """The arrays of several files, one after the other."""
        parts = [self._found(key, name, expected, large=large) for name in names]
        units = [self.units(key, part) for part in parts]
        for name, part, unit in zip(names, parts, units, strict=True):
            if not part.shape or part.shape[1:] != parts[0].shape[1:] or unit != units[0]:
                raise InputError(
                    f"{self.path.parent / name} has shape {part.shape} and the units {unit}, expected {expected} like "
                    f"{names[0]}, of shape {parts[0].shape} and the units {units[0]}"
                )
        if large:
            self.notes.append(f"{key}: {len(names)} files, from {names[0]} to {names[-1]}")
        self._units[key] = units[0]
        return ConcatenatedStack(parts) if large else np.concatenate([self.load(key, part) for part in parts])

    def _parts(self, file: HDF5File, name: str) -> list[h5py.Dataset]:
        """Datasets of a group, or of a pattern of names, in the order of their numbers."""
        group, _, pattern = (name, "/", "*") if file.has_group(name) else name.rpartition("/")
        names = in_order(fnmatch.filter(file.names(group or "/"), pattern))
        parts: list[Any] = [file.existing(f"{group}/{one}") for one in names]
        while parts and parts[-1] is None:
            parts.pop()
        if len(parts) < len(names):
            self.notes.append(f"patterns: {', '.join(names[len(parts) :])} left out, which lead nowhere")
        for one, part in zip(names, parts, strict=False):
            if part is None or part.ndim < 3 or part.shape[1:] != parts[0].shape[1:]:
                found = "missing" if part is None else f"of shape {part.shape}"
                raise InputError(
                    f"{file.path}: {group}/{one} is {found}, expected [n, rows, columns] like the others"
                )
        return parts

    def real(self, key: str, expected: str) -> NDArray[np.float64]:
        """An array of real numbers, loaded whole."""
        array = self.find(key, expected)
        if array.dtype.kind not in "fiu":
            raise InputError(f"{self.where(key)} is {array.dtype}, expected {expected}")
        return self.load(key, array).astype(np.float64)

    def _opened(self, path: Path, expected: str) -> HDF5File | Archive:
        if is_archive(path):
            return self._stack.enter_context(open_archive(path))
        if h5py.is_hdf5(path):
            return HDF5File.open(path, self._options, self._stack)
        raise InputError(f"{path}: neither HDF5 nor NPZ, expected {expected} in it")


def _column(values: NDArray, names: tuple[str, ...], column: str, where: str, expected: str) -> NDArray:
    """A column of a table [n, columns], or a field of a structured array, by its name or its number from 0."""
    if names.count(column) == 1:
        return values[column] if values.dtype.names else values[:, names.index(column)]
    if column.isdecimal() and values.ndim == 2 and int(column) < values.shape[1]:
        return values[:, int(column)]
    choice = ", ".join(names) or f"the shape {values.shape}"
    raise InputError(f"{where} has no column {column!r}, expected {expected} among its columns ({choice})")
