"""Files of unknown format: the user maps keys to arrays.

Keys of the mapping
-------------------
patterns
    [n, rows, columns], or [slow, fast, rows, columns] for a raster. Required, unless the file itself is an NPY array
    of this shape.
positions, or x and y
    [n, 2] (or [2, n] unless n is 2), or [n] each, x = column, y = row; a raster may have two axes instead of one.
    Required.
probe
    optional, complex [..., modes, N, N] with leading axes of length 1.
mask, or bad
    optional [rows, columns]: nonzero = valid, or nonzero = bad.
pixel_size, wavelength
    optional, one number in metres.

A value is a path inside the file (HDF5) or the name of an array (NPZ); ``file:path`` is a path inside another file,
relative to this one, and the name of an NPY or text file (.csv, .txt; numbers in columns) is the array in it.

Conventions that no option states are detected, and reported with the reason: the unit from a `units` attribute or from
the span of the positions; the direct beam from the centre of the mean pattern. Counts are assumed, since
amplitudes cannot be told from them.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File, attribute_text
from ptychonnx.runtime.formats.containers.npz import Archive, is_archive, open_archive
from ptychonnx.runtime.formats.containers.stacks import RasterStack
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.quantities import positive_number
from ptychonnx.runtime.formats.read_options import METRES, Convention, Conventions, ReadOptions

__all__ = ["KEYS", "read"]

KEYS = ("patterns", "positions", "x", "y", "probe", "mask", "bad", "pixel_size", "wavelength")
# No stage scans further than this many metres, and no scan on a canvas of pixels spans as little.
_LARGEST_SPAN_M = 0.05
_ARRAY_FILES = {".npy", ".csv", ".txt"}
_NPY = b"\x93NUMPY"


def read(path: Path, options: ReadOptions, stack: ExitStack) -> RawScan:
    """Read a scan by `options.mapping`; `stack` closes the files.

    Raises
    ------
    InputError
        If a key of the mapping is unknown, or a value leads nowhere or to an array of another kind.
    """
    unknown = sorted(set(options.mapping) - set(KEYS))
    if unknown:
        raise InputError(f"{path}: cannot map {', '.join(unknown)}, expected some of {', '.join(KEYS)}")
    mapping = dict(options.mapping)
    if "patterns" not in mapping and _is_npy(path):
        mapping["patterns"] = path.name
    if "patterns" not in mapping or not ("positions" in mapping or {"x", "y"} <= set(mapping)):
        raise InputError(
            f"{path}: {', '.join(mapping) or 'nothing'} mapped, expected patterns, and positions or x and y"
        )
    arrays = _Mapping(path, mapping, options, stack)
    patterns = arrays.find("patterns", "patterns [n, rows, columns]", large=True)
    if len(patterns.shape) == 4:
        patterns = RasterStack(patterns)
    if len(patterns.shape) != 3:
        raise InputError(
            f"{path}: {mapping['patterns']} has shape {patterns.shape}, expected [n, rows, columns]"
        )
    positions, unit, axes = _positions(arrays, patterns.shape[0])
    mask = _mask(arrays)
    return RawScan(
        path=path,
        patterns=patterns,
        patterns_key=mapping["patterns"],
        positions=positions,
        positions_key=mapping.get("positions") or f"{mapping['x']} and {mapping['y']}",
        conventions=Conventions(
            unit,
            axes,
            Convention("as-is", "assumed"),
            Convention("counts", "assumed"),
            Convention("centre", "assumed"),
        ),
        detect_dc=True,
        absolute=unit.value == "px",
        probe=_probe(arrays),
        mask=mask,
        pixel_size=_metres(arrays, "pixel_size"),
        wavelength=_metres(arrays, "wavelength"),
    )


class _Mapping:
    """Arrays by the keys of the mapping; each file is opened once."""

    def __init__(self, path: Path, names: dict[str, str], options: ReadOptions, stack: ExitStack) -> None:
        self.path, self.names = path, names
        self._options, self._stack = options, stack
        self._open: dict[Path, HDF5File | Archive] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.names

    def where(self, key: str) -> str:
        """File and name, for messages."""
        return f"{self.path}: {self.names[key]}"

    def find(self, key: str, expected: str, *, large: bool = False) -> Any:
        """An HDF5 dataset, still in its file, or an array; a `large` one is memory-mapped where possible."""
        name = self.names[key]
        neighbour = self.path.parent / name
        if neighbour.suffix in _ARRAY_FILES and neighbour.is_file():
            return _array_file(neighbour, expected)
        path = self.path
        file_name, colon, rest = name.partition(":")
        if colon and (self.path.parent / file_name).is_file():
            path, name = self.path.parent / file_name, rest
        if path not in self._open:
            self._open[path] = self._opened(path, expected)
        container = self._open[path]
        if isinstance(container, Archive):
            return container.stack(name, expected) if large else container.array(name, expected)
        if not container.has(name):
            raise InputError(
                f"{path}: no dataset {name}, expected {expected} (the file has {', '.join(sorted(container.root))})"
            )
        return container.get(name)

    def real(self, key: str, expected: str) -> NDArray[np.float64]:
        """An array of real numbers, loaded whole."""
        array = self.find(key, expected)
        if array.dtype.kind not in "fiu":
            raise InputError(f"{self.where(key)} is {array.dtype}, expected {expected}")
        return np.asarray(array[()], dtype=np.float64)

    def _opened(self, path: Path, expected: str) -> HDF5File | Archive:
        if is_archive(path):
            return self._stack.enter_context(open_archive(path))
        if h5py.is_hdf5(path):
            return HDF5File.open(path, self._options, self._stack)
        raise InputError(f"{path}: neither HDF5 nor NPZ, expected {expected} in it")


def _array_file(path: Path, expected: str) -> NDArray:
    try:
        if _is_npy(path):
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None, ndmin=2)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: no array of numbers ({error}), expected {expected}") from error


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_NPY)) == _NPY


def _positions(arrays: _Mapping, n: int) -> tuple[NDArray[np.float64], Convention, Convention]:
    if "positions" in arrays:
        key = "positions"
        values = arrays.real(key, "positions [n, 2]")
        if values.ndim > 2 and values.shape[-1] == 2:
            values = values.reshape(-1, 2)
        elif values.shape == (2, n) and n != 2:
            values = values.T
        axes = Convention("row,column", "assumed")
    else:
        key = "x"
        x, y = (arrays.real(key, f"{key} [n]").reshape(-1) for key in "xy")
        if x.shape != y.shape:
            raise InputError(f"{arrays.path}: x has shape {x.shape} and y {y.shape}, expected the same")
        values, axes = np.stack([x, y], axis=1), Convention("column,row", "x and y are mapped")
    return values, _unit(arrays.find(key, "positions"), values), axes


def _unit(array: Any, values: NDArray[np.float64]) -> Convention:
    name = attribute_text(array, "units") if isinstance(array, h5py.Dataset) else ""
    if name in METRES or name == "px":
        return Convention(name, "from the units of the file")
    span = float(np.ptp(values, axis=0).max()) if values.size and np.isfinite(values).all() else np.inf
    if span == 0:
        return Convention("px", "assumed")
    if span < _LARGEST_SPAN_M:
        return Convention("m", f"they span {span:.3g}, too little for pixels")
    return Convention("px", f"they span {span:.4g}, too much for metres")


def _mask(arrays: _Mapping) -> NDArray[np.bool_] | None:
    for key in ("mask", "bad"):
        if key in arrays:
            marked = arrays.find(key, f"{key} [rows, columns]")
            if len(marked.shape) != 2 or marked.dtype.kind not in "iubf":
                raise InputError(
                    f"{arrays.where(key)} is {marked.dtype} of shape {marked.shape}, expected [rows, columns]"
                )
            return (marked[()] != 0) == (key == "mask")
    return None


def _probe(arrays: _Mapping) -> NDArray[np.complex64] | None:
    if "probe" not in arrays:
        return None
    expected = "complex [..., modes, N, N] with leading axes of length 1"
    probe = arrays.find("probe", expected)
    if probe.dtype.kind != "c" or len(probe.shape) < 2 or any(length != 1 for length in probe.shape[:-3]):
        raise InputError(
            f"{arrays.where('probe')} is {probe.dtype} of shape {probe.shape}, expected {expected}"
        )
    return np.asarray(probe[()], dtype=np.complex64).reshape(-1, *probe.shape[-2:])


def _metres(arrays: _Mapping, key: str) -> float | None:
    if key not in arrays:
        return None
    value = arrays.find(key, f"{key}, one number of metres")[()]
    return positive_number(value, arrays.where(key), "one positive number of metres")
