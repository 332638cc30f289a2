"""Objects of any program, without a scan.

Files
-----
NPZ with `object` complex [rows, columns], `pixel_size` in metres if known; NPY, the object alone.
HDF5 with `object` complex [rows, columns] or [layers, rows, columns], its attribute `pixel_width_m` if known: a product
    of ptychodus, or a file of `ptychonnx reconstruct`.
CXI with `entry_1/image_2/data` as ptychodus and `ptychonnx reconstruct` write it, or `entry_1/image_1/data`.
HDF5 with `obj` complex [rows, columns] and `obj_basis` in metres, as cdtools writes it.
NPZ with `psi` complex [rows, columns] or [1, rows, columns], as tike names it.
.ptyr of ptypy: `content/obj/*/data` and `_psize`.
.mat of version 7.3 with `object` (real, imag) [columns, rows], as PtychoShelves writes it.
A pair of TIFF images, `<name>_amplitude.tif` and `<name>_phase.tif`, of which either is named.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.formats.containers.damage import damage_refused
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File
from ptychonnx.runtime.formats.containers.npz import Archive, is_archive, is_npy, load_npy, open_archive
from ptychonnx.runtime.formats.containers.single_precision import in_single_precision, of_polar, of_two_fields
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.paths import StrPath, check_file

__all__ = ["SAME_PIXELS", "ReadObject", "archive_pixel_size", "hdf5_pixel_size", "read_object"]

_PTYPY = "content/obj"
_HDF5 = ("object", "obj", "entry_1/image_2/data", "entry_1/image_1/data")
_PTYCHODUS_IN_CXI = "entry_1/ptychodus/object_pixel_width_m"
# Pixel sizes that differ by less are rounding: half a pixel at the border of an object of 1,000.
SAME_PIXELS = 1e-3
_TIFF_ENDINGS = (".tif", ".tiff")


@dataclass(frozen=True)
class ReadObject:
    """An object as a file holds it."""

    values: NDArray[np.complex64]  # complex64 [rows, columns]
    pixel_size: float | None  # in metres; None if the file does not say


def read_object(path: StrPath) -> ReadObject:
    """Read the object of a reconstruction or a simulation.

    Raises InputError if the file holds no object, or one of several layers.
    """
    path = Path(path)
    check_file(path, "an object (HDF5, CXI, .ptyr, .mat, NPZ, NPY or TIFF)")
    if path.suffix.lower() in _TIFF_ENDINGS:
        return _checked(path, _from_tiff(path), None)
    if is_archive(path):
        with open_archive(path) as archive:
            size = archive_pixel_size(archive)
            key = "psi" if "psi" in archive else "object"
            return _checked(path, archive.complex(key, "complex [rows, columns]"), size)
    if is_npy(path):
        return _checked(path, load_npy(path, "complex [rows, columns]"), None)
    if h5py.is_hdf5(path):
        with damage_refused(path), ExitStack() as stack:
            return _from_hdf5(HDF5File.open(path, ReadOptions(), stack))
    raise InputError(f"{path}: neither HDF5, NPZ, NPY nor TIFF, expected an object of one of these formats")


def archive_pixel_size(archive: Archive) -> float | None:
    """Side of the object's pixels in metres as an NPZ file states it; None if it does not."""
    if "pixel_size" not in archive:
        return None
    return _size(archive.real("pixel_size", "metres"))


def hdf5_pixel_size(file: HDF5File) -> float | None:
    """Side of the object's pixels in metres as an HDF5 file of any program states it; None if it does not."""
    if file.has_group(_PTYPY):
        sides = f"{_PTYPY}/{next(iter(file.names(_PTYPY)), '*')}/_psize"
        return _size(file.real("(row, column) in metres", sides)) if file.has(sides) else None
    if file.has(_PTYCHODUS_IN_CXI):
        return _size(file.real("metres", _PTYCHODUS_IN_CXI))
    if file.has("obj_basis"):
        sides = np.linalg.norm(file.real("metres [3, 2]", "obj_basis"), axis=0)
        return (
            _size(sides) if sides.ndim and np.allclose(sides, sides[:1], rtol=SAME_PIXELS, atol=0) else None
        )
    if not file.has("object"):
        return None
    return _size(file.dataset("an object", "object").attrs.get("pixel_width_m"))


def _size(stored: Any) -> float | None:
    """A positive number of metres, or the first of several; None for anything else."""
    value = np.ravel(stored)
    if not value.size or value.dtype.kind not in "fiu" or not (np.isfinite(value[0]) and value[0] > 0):
        return None
    return float(value[0])


def _from_hdf5(file: HDF5File) -> ReadObject:
    size = hdf5_pixel_size(file)
    if file.has_group(_PTYPY):
        storage = f"{_PTYPY}/{next(iter(file.names(_PTYPY)), '*')}"
        return _checked(file.path, file.complex("complex", f"{storage}/data"), size)
    dataset = file.dataset("an object", *_HDF5)
    values = file.load(dataset, complete=False)
    if values.dtype.names and {"real", "imag"} <= set(values.dtype.names):
        # MATLAB stores columns first.
        values = of_two_fields(values, f"{file.path}: {dataset.name}").T
    return _checked(file.path, values, size)


def _from_tiff(path: Path) -> NDArray[np.complex64]:
    from skimage.io import imread

    stem, _, kind = path.stem.rpartition("_")
    if kind not in ("amplitude", "phase"):
        raise InputError(f"{path}: expected a pair of images <name>_amplitude and <name>_phase")
    images = {}
    for part in ("amplitude", "phase"):
        image = path.with_name(f"{stem}_{part}{path.suffix}")
        if not image.is_file():
            raise InputError(f"{image}: no such file, expected the {part} that belongs to {path.name}")
        try:
            pixels = np.asarray(imread(image))
            images[part] = pixels.astype(np.float64)
        except Exception as error:  # image libraries raise types of their own
            raise InputError(
                f"{image}: damaged or unreadable ({first_line(error)}), expected an image"
            ) from error
        if part == "phase" and pixels.dtype.kind != "f":
            raise InputError(f"{image}: grey values of {pixels.dtype}, expected phases in radians as float32")
    if images["amplitude"].shape != images["phase"].shape:
        raise InputError(
            f"{path}: amplitude {images['amplitude'].shape} and phase {images['phase'].shape}, expected one shape"
        )
    return of_polar(images["amplitude"], images["phase"], f"{path}: the object")


def _checked(path: Path, values: NDArray, pixel_size: float | None) -> ReadObject:
    while values.ndim > 2 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "cf":
        raise InputError(
            f"{path}: the object is {values.dtype} {values.shape}, expected complex [rows, columns] of one layer"
        )
    return ReadObject(in_single_precision(values, f"{path}: the object"), pixel_size)
