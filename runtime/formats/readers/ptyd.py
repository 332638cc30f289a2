"""ptypy's prepared data: `.ptyd` files (HDF5).

Read
----
chunks/0, chunks/1, ...
    Each with `data` [m, N, N] photon counts, DC at [N // 2, N // 2]; `positions` [m, 2], **(y, x) = (row, column) in
    metres**, growing with the index of the object's array; `weights` shaped like `data` or empty, 0 = bad. A chunk may
    be a link to a file in the same folder; chunks are ordered by number.
meta
    `distance` (m), `energy` (**keV**), `psize` (m, one number or two) of the detector's pixels after ptypy's own
    binning.
info/positions_scan, info/positions_theory
    [n, 2], used if the chunks have no positions, at the chunks' `indices`.
meta/weight2d, info/weight2d, common/weight2d
    [N, N], used if the chunks have no weights.

ptypy marks values that are None, and lists of them, with an attribute `type`: those count as missing. Weights that
differ between patterns become one mask of the pixels that are good in all of them. The object pixel size is
wavelength * distance / (N * psize). A position is the centre of a window up to a constant.
"""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File
from ptychonnx.runtime.formats.containers.stacks import ConcatenatedStack
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.quantities import ENERGY_UNITS, positive_number, wavelength_of_energy
from ptychonnx.runtime.formats.read_options import Conventions

__all__ = ["matches", "read"]

_BLOCK = 64
# keV; more is an energy in eV.
_LARGEST_ENERGY = 200.0


def matches(file: HDF5File) -> bool:
    """True if the file has ptypy's groups."""
    return file.has_group("chunks") and file.has_group("meta")


def read(file: HDF5File) -> RawScan:
    """Read a scan.

    Raises InputError if there is no chunk, a chunk's file is missing, or shapes disagree.
    """
    chunks = _chunks(file)
    parts = [file.dataset("photon counts [m, N, N]", f"{name}/data") for name in chunks]
    for part in parts:
        if part.ndim != 3 or part.shape[1:] != parts[0].shape[1:]:
            raise file.shape_error(part, "[m, N, N] like the others")
    size = parts[0].shape[-1]
    positions, positions_key = _positions(file, chunks, [len(part) for part in parts])
    wavelength, pixel = _geometry(file, size)
    return RawScan(
        path=file.path,
        patterns=parts[0] if len(parts) == 1 else ConcatenatedStack(parts),
        patterns_key=f"{chunks[0]}/data" if len(parts) == 1 else "chunks/*/data",
        positions=positions,
        positions_key=positions_key,
        conventions=Conventions.of_format("ptypy", unit="m", axes="row,column"),
        mask=_mask(file, chunks, parts),
        pixel_size=pixel,
        wavelength=wavelength,
        distance=_distance(file),
        notes=_missing_chunks(chunks),
    )


def _chunks(file: HDF5File) -> list[str]:
    numbers = sorted((name for name in file.names("chunks") if name.isdecimal()), key=int)
    if not numbers:
        raise InputError(f"{file.path}: no chunk chunks/0, expected patterns in chunks")
    for name in numbers:
        if not file.has_group(f"chunks/{name}"):
            target = file.dangling(f"chunks/{name}")
            raise InputError(
                f"{file.path}: chunks/{name} leads to {target}, which is missing, expected it in the same folder"
            )
    return [f"chunks/{name}" for name in numbers]


def _missing_chunks(chunks: list[str]) -> tuple[str, ...]:
    """A line about the chunks that a gap in the numbers shows to be missing."""
    numbers = [int(name.rpartition("/")[2]) for name in chunks]
    lacking = numbers[-1] + 1 - len(numbers)
    if not lacking:
        return ()
    first = next(number for number in range(numbers[-1]) if number not in numbers)
    return (f"patterns: {lacking} of {numbers[-1] + 1} chunks are missing (first chunks/{first})",)


def _numbers(file: HDF5File, name: str) -> h5py.Dataset | None:
    """A dataset of numbers, unless ptypy marks it as None."""
    found = file.first(name)
    if found is None or found.attrs.get("type") in ("None", b"None") or found.dtype.kind not in "fiub":
        return None
    return found if found.size else None


def _positions(file: HDF5File, chunks: list[str], lengths: list[int]) -> tuple[NDArray[np.float64], str]:
    of_chunks = [_numbers(file, f"{name}/positions") for name in chunks]
    if all(found is not None for found in of_chunks):
        arrays = [file.load(found) for found in of_chunks if found is not None]
        for name, array, length in zip(chunks, arrays, lengths, strict=True):
            if array.shape != (length, 2):
                raise InputError(
                    f"{file.path}: {name}/positions has shape {array.shape}, expected {(length, 2)}, (row, column) "
                    "in metres"
                )
        return np.concatenate(arrays).astype(np.float64), "chunks/*/positions"
    for name in ("info/positions_theory", "info/positions_scan"):
        found = _numbers(file, name)
        if found is not None and found.ndim == 2:
            # The frames that were prepared; more positions may have been planned.
            return _planned(file, chunks, lengths, file.load(found).astype(np.float64)), name
    raise InputError(
        f"{file.path}: no dataset {chunks[0]}/positions or info/positions_scan, expected (row, column) in metres "
        "[n, 2]"
    )


def _planned(
    file: HDF5File, chunks: list[str], lengths: list[int], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of all planned positions those of the frames, by the chunks' `indices`; the first ones without them."""
    parts = [_numbers(file, f"{name}/indices") for name in chunks]
    indices = np.concatenate(
        [np.arange(0)] + [file.load(part).reshape(-1) for part in parts if part is not None]
    )
    if any(part is None for part in parts):
        if chunks != [f"chunks/{number}" for number in range(len(chunks))]:
            raise InputError(
                f"{file.path}: has {', '.join(chunks)} without positions or indices, expected all chunks from 0 on"
            )
        return positions[: sum(lengths)]
    if len(indices) != sum(lengths) or indices.min() < 0 or indices.max() >= len(positions):
        raise InputError(
            f"{file.path}: chunks/*/indices are {len(indices)} numbers up to {indices.max()}, expected one of the "
            f"{len(positions)} positions for each of the {sum(lengths)} patterns"
        )
    return positions[indices.astype(np.intp)]


def _mask(file: HDF5File, chunks: list[str], parts: list[h5py.Dataset]) -> NDArray[np.bool_] | None:
    mask: NDArray[np.bool_] | None = None
    for name, part in zip(chunks, parts, strict=True):
        weights = _numbers(file, f"{name}/weights")
        if weights is None:
            continue
        if weights.shape not in (part.shape, part.shape[1:]):
            raise file.shape_error(weights, f"{part.shape}")
        frames = weights.shape[0] if weights.ndim == 3 else 0
        blocks = (weights[start : start + _BLOCK] for start in range(0, frames, _BLOCK))
        for block in blocks if frames else [file.load(weights)[None]]:
            good = np.logical_and.reduce(block > 0, axis=0)
            mask = good if mask is None else mask & good
    if mask is not None:
        return mask
    for name in ("meta/weight2d", "info/weight2d", "common/weight2d"):
        found = _numbers(file, name)
        if found is not None and found.shape == parts[0].shape[1:]:
            return file.load(found) > 0
    return None


def _geometry(file: HDF5File, size: int) -> tuple[float | None, float | None]:
    """Wavelength and object pixel size in metres, as far as they are known."""
    energy, psize = (_numbers(file, f"meta/{name}") for name in ("energy", "psize"))
    distance = _distance(file)
    if energy is None:
        return None, None
    where = f"{file.path}: {energy.name}"
    kilo_electron_volts = positive_number(file.load(energy), where, "one positive energy in keV")
    if kilo_electron_volts > _LARGEST_ENERGY and file.options.wavelength is None:
        raise InputError(
            f"{where} is {kilo_electron_volts:g}, expected at most {_LARGEST_ENERGY:g} keV: is it in eV? --wavelength "
            "in metres overrides it"
        )
    wavelength = file.options.wavelength or wavelength_of_energy(kilo_electron_volts * ENERGY_UNITS["keV"])
    if distance is None or psize is None:
        return wavelength, None
    sides = np.asarray(file.load(psize), dtype=np.float64).reshape(-1)
    if sides.size not in (1, 2) or not np.allclose(sides, sides[0], rtol=1e-3, atol=0):
        raise InputError(f"{file.path}: {psize.name} is {sides.tolist()}, expected square pixels in metres")
    side = positive_number(sides[0], f"{file.path}: {psize.name}", "a positive length in metres")
    return wavelength, wavelength * distance / (size * side)


def _distance(file: HDF5File) -> float | None:
    found = _numbers(file, "meta/distance")
    return None if found is None else file.distance(found.name)
