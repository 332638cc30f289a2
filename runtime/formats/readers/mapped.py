"""Scans in files of no known format: the user says where everything is.

Keys of the mapping
-------------------
patterns
    [n, rows, columns], or [slow, fast, rows, columns] of a raster. Needed, unless the file itself is an NPY array of
    this shape.
positions, or x and y
    [n, 2] (or [2, n] for n other than 2), or [n] each, x = column, y = row; a raster may have two axes instead of
    one. Needed.
probe
    optional, complex [..., modes, N, N] with leading axes of length 1.
mask, or bad
    optional [rows, columns]: nonzero = trust, or nonzero = bad.
pixel_size, wavelength
    optional, one number in metres.

A value is a path inside the file (HDF5) or the name of an array (NPZ); ``file:path`` looks into another file,
relative to this one, and the name of an NPY or text file (.csv, .txt; numbers in columns) stands for itself.

What is not said with options is detected, and the reader says what it found and why: the unit from a `units` attribute
or from the span of the positions; the direct beam from the brightest pixel of the mean pattern; amplitudes are not
told from counts, counts are assumed.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.npz import is_archive, open_archive
from ptychonnx.runtime.formats.containers.stacks import Flattened
from ptychonnx.runtime.formats.conversion.frames import detect_dc
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.read_options import METRES, Conventions, ReadOptions, Stated

__all__ = ["KEYS", "read"]

KEYS = ("patterns", "positions", "x", "y", "probe", "mask", "bad", "pixel_size", "wavelength")
# No stage scans further than this many metres, and no scan on a canvas of pixels spans as little.
_LARGEST_SPAN_M = 0.05
_WHOLE = {".npy", ".csv", ".txt"}
_NPY = b"\x93NUMPY"


def read(path: Path, options: ReadOptions, stack: ExitStack) -> RawScan:
    """Read a scan by `options.mapping`; `stack` closes the files when the scan has been assembled.

    Raises
    ------
    InputError
        If a key of the mapping is unknown, leads nowhere, or holds something else.
    """
    unknown = sorted(set(options.mapping) - set(KEYS))
    if unknown:
        raise InputError(f"{path}: cannot map {', '.join(unknown)}, expected some of {', '.join(KEYS)}")
    files = _Files(path, stack)
    mapping = dict(options.mapping)
    if "patterns" not in mapping and _is_npy(path):
        mapping["patterns"] = path.name
    if "patterns" not in mapping or not ("positions" in mapping or {"x", "y"} <= set(mapping)):
        raise InputError(
            f"{path}: {', '.join(mapping) or 'nothing'} mapped, expected patterns, and positions or x and y"
        )
    patterns = files.find(mapping["patterns"], "patterns [n, rows, columns]", large=True)
    if len(patterns.shape) == 4:
        patterns = Flattened(patterns)
    if len(patterns.shape) != 3:
        raise InputError(
            f"{path}: {mapping['patterns']} has shape {patterns.shape}, expected [n, rows, columns]"
        )
    positions, unit, axes = _positions(files, mapping, patterns.shape[0])
    mask = _mask(files, mapping)
    place, reason = (
        (options.dc, "given") if options.dc else detect_dc(patterns, mask, f"{path}: {mapping['patterns']}")
    )
    return RawScan(
        path=path,
        patterns=patterns,
        patterns_key=mapping["patterns"],
        positions=positions,
        positions_key=mapping.get("positions") or f"{mapping['x']} and {mapping['y']}",
        conventions=Conventions(
            unit, axes, Stated("as-is", "assumed"), Stated("counts", "assumed"), Stated(place, reason)
        ),
        absolute=unit.value == "px",
        probe=_probe(files, mapping),
        mask=mask,
        pixel_size=_number(files, mapping, "pixel_size"),
        wavelength=_number(files, mapping, "wavelength"),
    )


class _Files:
    """Files that the mapping names, each opened once."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self._stack = path, stack
        self._open: dict[Path, Any] = {}

    def find(self, target: str, expected: str, *, large: bool = False) -> Any:
        """An HDF5 dataset, still in its file, or an array, which is mapped from the file where that is possible if it
        is `large`."""
        beside = self.path.parent / target
        if beside.suffix in _WHOLE and beside.is_file():
            return self._whole(beside, expected)
        path, key = self.path, target
        name, colon, rest = target.partition(":")
        if colon and (self.path.parent / name).is_file():
            path, key = self.path.parent / name, rest
        if path not in self._open:
            self._open[path] = self._opened(path, expected)
        container = self._open[path]
        if not isinstance(container, h5py.File):
            return container.stack(key, expected) if large else container.array(key, expected)
        found = container.get(key)
        if not isinstance(found, h5py.Dataset):
            raise InputError(
                f"{path}: no dataset {key}, expected {expected} (the file has {', '.join(sorted(container))})"
            )
        return found

    def _opened(self, path: Path, expected: str) -> Any:
        if is_archive(path):
            return self._stack.enter_context(open_archive(path))
        if h5py.is_hdf5(path):
            return self._stack.enter_context(h5py.File(path, "r"))
        raise InputError(f"{path}: neither HDF5 nor NPZ, expected {expected} in it")

    def _whole(self, path: Path, expected: str) -> NDArray:
        try:
            if _is_npy(path):
                return np.load(path, mmap_mode="r", allow_pickle=False)
            return np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None, ndmin=2)
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: no array of numbers ({error}), expected {expected}") from error


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_NPY)) == _NPY


def _positions(files: _Files, mapping: dict[str, str], n: int) -> tuple[NDArray[np.float64], Stated, Stated]:
    if "positions" in mapping:
        key = mapping["positions"]
        found = files.find(key, "positions [n, 2]")
        values = _real(files, found, key, "positions [n, 2]")
        if values.ndim > 2 and values.shape[-1] == 2:
            values = values.reshape(-1, 2)
        elif values.shape == (2, n) and n != 2:
            values = values.T
        axes = Stated("row,column", "assumed")
    else:
        key = mapping["x"]
        found = files.find(key, "x [n]")
        x = _real(files, found, key, "x [n]").reshape(-1)
        y = _real(files, files.find(mapping["y"], "y [n]"), mapping["y"], "y [n]").reshape(-1)
        if x.shape != y.shape:
            raise InputError(f"{files.path}: x has shape {x.shape} and y {y.shape}, expected the same")
        values, axes = np.stack([x, y], axis=1), Stated("column,row", "x and y are mapped")
    return values, _unit(found, values), axes


def _unit(found: Any, values: NDArray[np.float64]) -> Stated:
    named = found.attrs.get("units") if isinstance(found, h5py.Dataset) else None
    text = named.decode() if isinstance(named, bytes) else named
    if text in METRES or text == "px":
        return Stated(str(text), "from the units of the file")
    span = float(np.ptp(values, axis=0).max()) if values.size and np.isfinite(values).all() else np.inf
    if span == 0:
        return Stated("px", "assumed")
    if span < _LARGEST_SPAN_M:
        return Stated("m", f"they span {span:.3g}, too little for pixels")
    return Stated("px", f"they span {span:.4g}, too much for metres")


def _real(files: _Files, found: Any, key: str, expected: str) -> NDArray[np.float64]:
    if found.dtype.kind not in "fiu":
        raise InputError(f"{files.path}: {key} is {found.dtype}, expected {expected}")
    return np.asarray(found[()], dtype=np.float64)


def _mask(files: _Files, mapping: dict[str, str]) -> NDArray[np.bool_] | None:
    for key in ("mask", "bad"):
        if key in mapping:
            found = files.find(mapping[key], f"{key} [rows, columns]")
            if len(found.shape) != 2 or found.dtype.kind not in "iubf":
                raise InputError(
                    f"{files.path}: {mapping[key]} is {found.dtype} of shape {found.shape}, expected [rows, columns]"
                )
            marked = np.asarray(found[()]) != 0
            return marked if key == "mask" else ~marked
    return None


def _probe(files: _Files, mapping: dict[str, str]) -> NDArray[np.complex64] | None:
    if "probe" not in mapping:
        return None
    expected = "complex [..., modes, N, N] with leading axes of length 1"
    found = files.find(mapping["probe"], expected)
    if found.dtype.kind != "c" or len(found.shape) < 2 or any(length != 1 for length in found.shape[:-3]):
        raise InputError(
            f"{files.path}: {mapping['probe']} is {found.dtype} of shape {found.shape}, expected {expected}"
        )
    return np.asarray(found[()], dtype=np.complex64).reshape(-1, *found.shape[-2:])


def _number(files: _Files, mapping: dict[str, str], key: str) -> float | None:
    if key not in mapping:
        return None
    value = np.asarray(files.find(mapping[key], f"{key}, one number of metres")[()])
    if (
        value.size != 1
        or value.dtype.kind not in "fiu"
        or not (np.isfinite(value).all() and value.item() > 0)
    ):
        raise InputError(
            f"{files.path}: {mapping[key]} is {value.tolist()}, expected one positive number of metres"
        )
    return float(value.item())
