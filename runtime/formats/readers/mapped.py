"""Files of unknown format: the user maps keys to arrays.

Keys of the mapping
-------------------
patterns
    [n, rows, columns], or [slow, fast, rows, columns] for a raster. Required, unless the file itself is an NPY array
    of this shape. An HDF5 group, or a pattern of names such as ``entry/data/data_*``, is one stack in the order of the
    numbers, as detectors write it.
positions, or x and y
    [n, 2] (or [2, n] unless n is 2), or [n] each, x = column, y = row; a raster may have two axes instead of one, or
    one value for each line and each point of a line. Required, unless the options describe a raster. Names of columns
    state their order and, with an ending such as ``_um``, their unit.
probe
    optional, complex [..., modes, N, N] with leading axes of length 1.
mask, or bad
    optional [rows, columns]: nonzero = valid, or nonzero = bad.
pixel_size, wavelength
    optional, one number in metres.

A value is a path inside the file (HDF5) or the name of an array (NPZ); ``file:path`` is a path inside another file,
relative to this one, and the name of an NPY, TIFF or text file (.csv, .txt; numbers in columns) is the array in it. The
name may be a pattern: ``line_*.h5:entry/data`` and ``frame_*.tif`` are one array in the order of the numbers. A column
is ``file.csv:name`` or ``dataset:name``, by its name or its number from 0; ``dataset[3:]`` are the patterns from the
fourth on.

Where the file of the patterns has `NDArrayUniqueId` of EPICS' area detector, with gaps or in another order, patterns
are paired with positions by these numbers.

Conventions that no option states are detected, and reported with the reason: the unit from a `units` attribute or from
the span of the positions; the direct beam from the centre of the mean pattern. Counts are assumed, since
amplitudes cannot be distinguished from them.
"""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.npz import is_npy
from ptychonnx.runtime.formats.containers.single_precision import in_single_precision
from ptychonnx.runtime.formats.containers.stacks import RasterStack, SelectedStack
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan, check_raster, raster_positions
from ptychonnx.runtime.formats.quantities import LENGTH_UNITS, positive_number, unit_factor
from ptychonnx.runtime.formats.read_options import METRES, Convention, Conventions, ReadOptions
from ptychonnx.runtime.formats.readers.mapped_arrays import MappedArrays
from ptychonnx.runtime.formats.readers.position_units import POSITION_UNITS, UNIT_SUFFIX, positions_unit
from ptychonnx.runtime.formats.readers.probe import probe_modes

__all__ = ["KEYS", "read"]

KEYS = ("patterns", "positions", "x", "y", "probe", "mask", "bad", "pixel_size", "wavelength")
# Patterns from one number to another, as Python writes it.
_PART = re.compile(r"\[(-?\d*):(-?\d*)\]$")
_INITIALS = ("xy", "xr", "cy", "cr")
# Names of the columns of a table: row, column, number of the frame, and the two axes of a stage.
_ROW, _COLUMN, _FRAME, _HORIZONTAL, _VERTICAL = (
    re.compile(rf"(?:^|[\W_])(?:{names})(?:$|[\W_\d])", re.IGNORECASE)
    for names in (
        *("y|rows?", "x|col(?:umn)?s?", "frames?|index|patterns?|triggers?|points?"),
        *("h|hor|horiz|horizontal|fast", "v|ver|vert|vertical|slow"),
    )
)


def read(path: Path, options: ReadOptions, stack: ExitStack) -> RawScan:
    """Read a scan by `options.mapping`; `stack` closes the files.

    Raises InputError if a key of the mapping is unknown, or a value leads nowhere or to an array of another kind.
    """
    unknown = sorted(set(options.mapping) - set(KEYS))
    if unknown:
        raise InputError(f"{path}: cannot map {', '.join(unknown)}, expected some of {', '.join(KEYS)}")
    mapping = dict(options.mapping)
    if "patterns" not in mapping and is_npy(path):
        mapping["patterns"] = path.name
    placed = "positions" in mapping or {"x", "y"} <= set(mapping) or options.raster is not None
    if "patterns" not in mapping or not placed:
        raise InputError(
            f"{path}: {', '.join(mapping) or 'nothing'} mapped, expected patterns, and positions or x and y"
        )
    part = _PART.search(mapping["patterns"])
    mapping["patterns"] = _PART.sub("", mapping["patterns"])
    arrays = MappedArrays(path, mapping, options, stack)
    patterns = arrays.find("patterns", "patterns [n, rows, columns]", large=True)
    raster = patterns.shape[:2] if len(patterns.shape) == 4 else ()
    numbers = arrays.frame_numbers(patterns, math.prod(raster or patterns.shape[:1]))
    if len(patterns.shape) == 4:
        patterns = RasterStack(patterns)
    if len(patterns.shape) != 3:
        raise InputError(
            f"{path}: {mapping['patterns']} has shape {patterns.shape}, expected [n, rows, columns]"
        )
    if isinstance(patterns, h5py.Dataset) and "MATLAB_class" in patterns.attrs:
        arrays.notes.append(
            "patterns: from MATLAB, which stores columns first: are rows and columns exchanged (--orientation "
            "transpose)?"
        )
    if part:
        first, last = (int(number) if number else None for number in part.groups())
        kept = np.arange(patterns.shape[0])[first:last]
        arrays.notes.append(f"patterns: {len(kept)} of {patterns.shape[0]} (given)")
        patterns, numbers = SelectedStack(patterns, kept), numbers[kept] - numbers[kept[:1]].sum()
    arrays.length = patterns.shape[0]
    positions, unit, axes = _positions(arrays, options, patterns.shape[0], raster)
    positions = _of_frames(arrays, positions, numbers, options)
    return RawScan(
        path=path,
        patterns=patterns,
        patterns_key=mapping["patterns"],
        positions=positions,
        positions_key=_positions_key(mapping),
        conventions=Conventions(
            unit,
            axes,
            Convention("as-is", "assumed"),
            _quantity(mapping["patterns"]),
            Convention("centre", "assumed"),
        ),
        detect_dc=True,
        absolute=unit.value == "px",
        probe=_probe(arrays),
        mask=_mask(arrays),
        pixel_size=_metres(arrays, "pixel_size"),
        wavelength=_metres(arrays, "wavelength"),
        notes=tuple(arrays.notes),
    )


def _of_frames(
    arrays: MappedArrays, positions: NDArray[np.float64], numbers: NDArray[np.intp], options: ReadOptions
) -> NDArray[np.float64]:
    """The positions of the frames that the detector did not lose, in their order.

    `numbers`: those of the frames, from 0, see `MappedArrays.frame_numbers`.
    """
    planned = int(numbers.max(initial=-1)) + 1
    known = len(positions) == planned or (options.ignore_extra_positions and len(positions) > planned)
    if not known or (np.diff(numbers) == 1).all():
        return positions
    lost = np.setdiff1d(np.arange(planned), numbers)
    first = f", {len(lost)} frames are lost (first number {lost[0]})" if len(lost) else ""
    arrays.notes.append(f"positions: paired by NDArrayUniqueId{first}")
    return positions[numbers]


def _positions_key(mapping: dict[str, str]) -> str:
    if "positions" in mapping:
        return mapping["positions"]
    return f"{mapping['x']} and {mapping['y']}" if "x" in mapping else "--raster"


def _quantity(name: str) -> Convention:
    if re.search(r"amp(litudes?)?$", name.lower()):
        return Convention("amplitude", f"by the name {name}")
    return Convention("counts", "assumed")


def _positions(
    arrays: MappedArrays, options: ReadOptions, n: int, raster: tuple[int, ...]
) -> tuple[NDArray[np.float64], Convention, Convention]:
    """Positions [n, 2], their unit, and the order of their columns; `raster` is (slow, fast), or empty."""
    axes = Convention("row,column", "assumed")
    of_columns: tuple[str, ...] = ()
    keys: tuple[str, ...] = ("positions",) if "positions" in arrays else ("x", "y") if "x" in arrays else ()
    if "positions" in arrays:
        values = np.atleast_1d(arrays.real("positions", "positions [n, 2]"))
        if values.ndim > 2 and values.shape[-1] == 2:
            check_raster(values.shape[:-1], raster, arrays.where("positions"))
            values = values.reshape(-1, 2)
        elif values.ndim == 2 and len(values) == 2 and values.shape[1] != 2:
            values = values.T
        names = arrays.names_of("positions")
        if not names and values.ndim == 2 and values.shape[0] != 2 < values.shape[1]:
            name = arrays.names["positions"]
            raise InputError(
                f"{arrays.where('positions')} has shape {values.shape}, expected (n, 2): --map x={name}:0 and --map "
                f"y={name}:1 choose two of its columns"
            )
        if len(names) > 2:
            values, names = _named_columns(arrays, options, values, names, n)
        of_columns = names
        if len(names) == 2 and (_named_x_y(*names) or (names[0][:1] + names[1][:1]).lower() in _INITIALS):
            axes = Convention("column,row", f"by the names {names[0]}, {names[1]}")
        elif len(names) == 2:
            axes = Convention("row,column", f"assumed, named {names[0]}, {names[1]}")
    elif keys:
        both = [arrays.real(key, f"{key} [n]") for key in "xy"]
        for key, axis in zip("xy", both, strict=True):
            check_raster(axis.shape, raster, arrays.where(key))
        # Some programs write [samples, n]; with a row for each pattern, rows follow each other as patterns do.
        x, y = (
            (axis.T if axis.ndim == 2 and axis.shape[1] == n != len(axis) else axis).reshape(-1)
            for axis in both
        )
        if raster and (len(y), len(x)) == raster:
            y, x = (axis.reshape(-1) for axis in np.meshgrid(y, x, indexing="ij"))
            arrays.notes.append(f"positions: a raster, y for {raster[0]} lines and x for {raster[1]} points")
        elif raster and (len(x), len(y)) == raster:
            x, y = (axis.reshape(-1) for axis in np.meshgrid(x, y, indexing="ij"))
            arrays.notes.append(f"positions: a raster, x for {raster[0]} lines and y for {raster[1]} points")
        if x.shape != y.shape:
            raise InputError(f"{arrays.path}: x has shape {x.shape} and y {y.shape}, expected the same")
        values, axes = np.stack([x, y], axis=1), Convention("column,row", "x and y are mapped")
    else:
        check_raster(options.raster or (), raster, f"{arrays.path}: --raster")
        values = raster_positions(options, n, str(arrays.path))
        axes = Convention("row,column", "raster convention")
    return values, positions_unit(arrays, keys, of_columns, values, options), axes


def _named_x_y(first: str, second: str) -> bool:
    alike = "x" in first.lower() and first.lower().replace("x", "y") == second.lower()
    pairs = ((_COLUMN, _ROW), (_HORIZONTAL, _VERTICAL))
    return alike or any(one.search(first) and other.search(second) for one, other in pairs)


def _named_columns(
    arrays: MappedArrays,
    options: ReadOptions,
    values: NDArray[np.float64],
    names: tuple[str, ...],
    n: int,
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Row and column of a table with more columns, and their names; a column of frames states the order."""
    where = arrays.where("positions")
    rows, columns, frames = (
        [index for index, name in enumerate(names) if kind.search(name)] for kind in (_ROW, _COLUMN, _FRAME)
    )
    if len(rows) != 1 or len(columns) != 1 or len(frames) > 1:
        raise InputError(
            f"{where} has the columns {', '.join(names)}, expected one named x and one named y: --map "
            f"x={arrays.names['positions']}:NAME chooses one, and y=... the other"
        )
    chosen = sorted([*rows, *columns])
    picked, kept = values[:, chosen], tuple(names[index] for index in chosen)
    arrays.notes.append(f"positions: the columns {kept[0]} and {kept[1]} of {', '.join(names)}")
    if not frames:
        return picked, kept
    name = names[frames[0]]
    unique, frame = np.unique(values[:, frames[0]], return_inverse=True)
    samples = np.bincount(frame)
    if len(unique) == len(values):
        if (np.diff(frame) < 0).any():
            arrays.notes.append(f"positions: sorted by {name}")
        if len(gaps := np.flatnonzero(np.diff(unique) > 1)) and len(unique) == n:
            arrays.notes.append(
                f"positions: {name} leaps from {unique[gaps[0]]:g} to {unique[gaps[0] + 1]:g}, and the file has {n} "
                "patterns: are those between lost too?"
            )
        return picked[np.argsort(frame)], kept
    if not options.average_positions:
        raise InputError(
            f"{where} has {len(values)} rows for {len(unique)} values of {name}, expected {n} of each: "
            f"--average-positions averages the rows of each {name}"
        )
    arrays.notes.append(f"positions: mean of {samples.min()} to {samples.max()} rows of each {name} (given)")
    return np.stack([np.bincount(frame, part) / samples for part in picked.T], axis=1), kept


def _mask(arrays: MappedArrays) -> NDArray[np.bool_] | None:
    for key in ("mask", "bad"):
        if key in arrays:
            marked = arrays.find(key, f"{key} [rows, columns]")
            if len(marked.shape) != 2 or marked.dtype.kind not in "iubf":
                raise InputError(
                    f"{arrays.where(key)} is {marked.dtype} of shape {marked.shape}, expected [rows, columns]"
                )
            values = arrays.load(key, marked)
            if not np.isfinite(values).all():
                raise InputError(
                    f"{arrays.where(key)} holds NaN or infinity, expected zeros and other numbers"
                )
            return (values != 0) == (key == "mask")
    return None


def _probe(arrays: MappedArrays) -> NDArray[np.complex64] | None:
    if "probe" not in arrays:
        return None
    where, expected = arrays.where("probe"), "complex [modes, N, N]"
    probe = arrays.find("probe", expected)
    if probe.dtype.kind != "c":
        raise InputError(f"{where} is {probe.dtype}, expected {expected}")
    return probe_modes(in_single_precision(arrays.load("probe", probe), where), where, several=False)


def _metres(arrays: MappedArrays, key: str) -> float | None:
    if key not in arrays:
        return None
    stored = arrays.find(key, f"{key}, one number of metres")
    number = positive_number(arrays.load(key, stored), arrays.where(key), "one positive number of metres")
    unit = next(iter(arrays.units(key, stored)), "")
    suffix = UNIT_SUFFIX.search(arrays.names[key].lower())
    if not unit:
        return number * (METRES.get(POSITION_UNITS[suffix[1]], 1.0) if suffix else 1.0)
    return number * unit_factor(unit, LENGTH_UNITS, arrays.where(key))
