"""Reference objects: an independent reconstruction, or the known object of a simulation.

Files
-----
NPZ with `object` complex [rows, columns] and `topleft_px` int [n, 2]
    (row, column) in `object` of the top-left corner of each pattern's window.
NPZ with `object` and `origin`
    (row, column) of the object's pixel [0, 0] in the coordinates of `Scan.positions`, [2].
HDF5 with `object` and `origin_px`, CXI with `entry_1/image_2/data` and `entry_1/ptychonnx/origin_px`
    As `ptychonnx.runtime.formats.writers.reconstruction_file` writes them; `origin_px` means the same as `origin`.
HDF5 with `object`, its attributes `pixel_width_m`, `center_x_m`, `center_y_m`, and `probe_position_x_m`, `_y_m`
    A product of ptychodus. With a position for every pattern of the scan these place the object; else the scan's own
    canvas begins at 0 m.
.ptyr of ptypy: `content/obj/*/data`, `_origin` and `_psize` in metres
    `_origin` is the edge of pixel [0, 0], in coordinates in which a position is the middle of a window.
.mat of PtychoShelves and fold_slice, version 7.3: `object`, `probe`, `outputs/probe_positions` and `p/dx_spec`
    A position (x, y) in pixels is the corner of a window, from the corner of the one in the middle of the object
    (`find_reconstruction_ROI_external` of fold_slice); from the first pixel if none is negative.
HDF5 of cdtools (`FancyPtycho.save_to_h5`): `obj`, `obj_basis`, `translations` and `state_dict/min_translation`
    A translation in units of the basis (rows, columns), less the smallest one in pixels, is the corner of a window.
NPZ with `psi` and `scan` of tike
    A position (row, column) in pixels is the corner of a window, from pixel [0, 0] of `psi`.

Pixels whose side the file states must be those of the scan, to a thousandth: `OtherPixels` is raised if not.
"""

from __future__ import annotations

import reprlib
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.damage import damage_refused
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File
from ptychonnx.runtime.formats.containers.npz import Archive, is_archive, open_archive
from ptychonnx.runtime.formats.containers.single_precision import in_single_precision
from ptychonnx.runtime.formats.quantities import positive_number
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.formats.readers.objects import SAME_PIXELS, archive_pixel_size, hdf5_pixel_size
from ptychonnx.runtime.formats.readers.ptychodus import placed_object
from ptychonnx.runtime.paths import StrPath, check_file
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import middle_to_centre, window_corners

__all__ = ["OtherPixels", "UnplacedObject", "read_reference"]

_HDF5 = ("object", "origin_px")
_PTYPY = "content/obj"
_SHELVES = "outputs/probe_positions"
_CXI = ("entry_1/image_2/data", "entry_1/ptychonnx/origin_px")
# Corners in whole pixels are off by half a pixel at most; more than this means another scan or pixel size.
_TOLERANCE_PX = 1.0


class UnplacedObject(InputError):
    """A file that does not say where its object lies."""


class OtherPixels(InputError):
    """An object whose pixels, of `pixel_size` metres, are not those of the scan."""

    def __init__(self, message: str, pixel_size: float) -> None:
        super().__init__(message)
        self.pixel_size = pixel_size


def read_reference(path: StrPath, scan: Scan) -> Reference:
    """Read an object and find where it lies on the canvas of a scan.

    Raises InputError if the file is of another kind, or its window corners do not fit the positions of the scan.
    """
    path = Path(path)
    check_file(path, "a reference object (NPZ or HDF5)")
    with damage_refused(path):
        if is_archive(path):
            with open_archive(path) as archive:
                _check_pixel_size(path, archive_pixel_size(archive), scan)
                return _from_archive(archive, scan)
        if h5py.is_hdf5(path):
            return _from_hdf5(path, scan)
    raise UnplacedObject(
        f"{path}: neither NPZ nor HDF5, expected a reference with 'object' and 'topleft_px' or 'origin'"
    )


def _from_archive(archive: Archive, scan: Scan) -> Reference:
    if "psi" in archive:
        return _from_tike(archive, scan)
    reference_object = archive.complex("object", "complex [rows, columns]")
    if "topleft_px" in archive:
        corners = archive.real("topleft_px", "window corners (row, column) [n, 2]")
        origin = _origin_from_corners(archive.path, corners.astype(np.float64), scan)
    else:
        if "origin" not in archive:
            raise UnplacedObject(
                f"{archive.path}: no key 'origin', expected (row, column) of the object's first pixel, or "
                "'topleft_px'"
            )
        origin = archive.real("origin", "(row, column) of the object's first pixel, or 'topleft_px'")
    return _reference(archive.path, reference_object, origin)


def _from_hdf5(path: Path, scan: Scan) -> Reference:
    with ExitStack() as stack:
        file = HDF5File.open(path, ReadOptions(), stack)
        _check_pixel_size(path, hdf5_pixel_size(file), scan)
        if file.has_group(_PTYPY):
            return _from_ptypy(file, scan)
        if file.has("obj") and file.has("obj_basis"):
            return _from_cdtools(file, scan)
        if file.has("object") and file.has(_SHELVES):
            return _from_ptychoshelves(file, scan)
        whole_key = file.has("object") and not file.has("origin_px")
        if whole_key and "center_x_m" in file.dataset("", "object").attrs:
            return _from_ptychodus(file, scan)
        keys = _CXI if "entry_1" in file.root else _HDF5
        for key in keys:
            if not file.has(key):
                raise UnplacedObject(f"{path}: no dataset {key!r}, expected {keys[0]!r} and {keys[1]!r}")
        whole, origin = (file.load(file.dataset("a reference", key), complete=False) for key in keys)
        return _reference(path, whole, origin)


def _from_ptychodus(file: HDF5File, scan: Scan) -> Reference:
    whole, pixel_size, corner = placed_object(file)
    x, y = file.vectors("float [n] in metres", "probe_position_x_m", "probe_position_y_m")
    middles = np.stack([y, x], axis=1) / pixel_size
    origin = np.array(corner) / pixel_size
    if len(middles) == len(scan):
        origin = origin + _shift(file.path, scan.positions - middle_to_centre(scan.size) - middles, scan)
    return _placed(file.path, whole, origin, scan)


def _from_ptypy(file: HDF5File, scan: Scan) -> Reference:
    storages = file.names(_PTYPY)
    if len(storages) > 1:
        raise InputError(f"{file.path}: has {len(storages)} objects ({', '.join(storages)}), expected one")
    storage = f"{_PTYPY}/{next(iter(storages), '*')}"
    whole = file.complex("complex [layers, rows, columns]", f"{storage}/data")
    sides = file.real("(row, column) in metres", f"{storage}/_psize").astype(np.float64).reshape(-1)
    edge = file.real("(row, column) in metres", f"{storage}/_origin").astype(np.float64).reshape(-1)
    whole = _only_layer(whole, file.path)
    if sides.shape != (2,) or edge.shape != (2,) or not (sides > 0).all():
        raise InputError(
            f"{file.path}: {storage} has _psize {sides} and _origin {edge}, expected (row, column) each"
        )
    return _placed(file.path, whole, edge / sides + 0.5, scan)


def _from_ptychoshelves(file: HDF5File, scan: Scan) -> Reference:
    whole = file.complex("complex [rows, columns]", "object")
    window = file.complex("complex [modes, N, N]", "probe").shape[-2:]
    corners = file.real("(x, y) in pixels [n, 2]", _SHELVES).astype(np.float64)[::-1].T
    side = file.real("metres", "p/dx_spec").reshape(-1)[:1]
    _check_pixel_size(
        file.path, positive_number(side, f"{file.path}: p/dx_spec", "a positive number of metres"), scan
    )
    if (corners < 0).any() and whole.ndim == len(window) == corners.shape[-1] == 2:
        corners = corners + np.ceil((np.array(whole.shape) - window) / 2) - 1
    return _at_corners(file.path, whole, corners, scan)


def _from_cdtools(file: HDF5File, scan: Scan) -> Reference:
    basis = file.real("metres [3, 2]", "obj_basis").astype(np.float64)
    translations = file.real("metres [n, 3]", "translations").astype(np.float64)
    first = file.real("pixels [2]", "state_dict/min_translation").astype(np.float64)
    shaped = basis.shape == (3, 2) and translations.shape[1:] == (3,) and first.shape == (2,)
    if not (shaped and np.isfinite(basis).all()):
        raise InputError(
            f"{file.path}: obj_basis {basis.shape}, translations {translations.shape} and min_translation "
            f"{first.shape}, expected finite [3, 2], [n, 3] and [2]"
        )
    whole = file.complex("complex [rows, columns]", "obj")
    return _at_corners(file.path, whole, translations @ np.linalg.pinv(basis).T - first, scan)


def _from_tike(archive: Archive, scan: Scan) -> Reference:
    whole = _only_layer(archive.complex("psi", "complex [rows, columns]"), archive.path)
    if "scan" not in archive:
        raise UnplacedObject(f"{archive.path}: no key 'scan', expected tike's positions next to 'psi'")
    corners = archive.real("scan", "corners (row, column) in pixels [n, 2]").astype(np.float64)
    return _at_corners(archive.path, whole, corners[0] if corners.ndim == 3 else corners, scan)


def _only_layer(layers: NDArray, path: Path) -> NDArray:
    """An object [rows, columns] without the axes of its layers or modes; refused if there are several."""
    whole = layers
    while whole.ndim > 2 and len(whole) == 1:
        whole = whole[0]
    if whole.ndim != 2:
        raise InputError(f"{path}: has an object {layers.shape}, expected one layer [rows, columns]")
    return whole


def _at_corners(path: Path, whole: NDArray, corners: NDArray[np.float64], scan: Scan) -> Reference:
    """An object whose file has the corner (row, column) of each window in its own pixels."""
    if corners.shape != (len(scan), 2) or whole.ndim != 2:
        raise InputError(
            f"{path}: has an object {whole.shape} and positions {corners.shape}, expected [rows, columns] and "
            f"{(len(scan), 2)}, one for each pattern of {scan.name}"
        )
    origin = _shift(path, window_corners(scan.positions, scan.size) - corners, scan)
    return _placed(path, whole, origin, scan)


def _shift(path: Path, shifts: NDArray[np.float64], scan: Scan) -> NDArray[np.float64]:
    """The best of the shifts of all positions, which must be about the same."""
    shift = np.median(shifts, axis=0)
    worst = float(np.abs(shifts - shift).max())
    if worst > _TOLERANCE_PX:
        raise InputError(
            f"{path}: its positions differ from those of {scan.name} by up to {worst:.1f} pixels after the best "
            f"shift, expected at most {_TOLERANCE_PX:g}: is it the same scan?"
        )
    return shift


def _check_pixel_size(path: Path, pixel_size: float | None, scan: Scan) -> None:
    if pixel_size is None or scan.pixel_size is None:
        return
    if not np.isclose(pixel_size, scan.pixel_size, rtol=SAME_PIXELS, atol=0):
        raise OtherPixels(
            f"{path}: its pixels are {pixel_size:.6g} m, expected {scan.pixel_size:.6g} m like those of {scan.name}",
            pixel_size,
        )


def _placed(path: Path, whole: NDArray, origin: NDArray[np.float64], scan: Scan) -> Reference:
    """A reference that the positions of the scan lie on."""
    reference = _reference(path, whole, origin)
    if not reference.covers(scan.positions):
        raise InputError(
            f"{path}: positions of {scan.name} leave its object of {whole.shape[0]} x {whole.shape[1]} pixels at "
            f"{np.round(origin, 2).tolist()}, expected a reconstruction of the same scan"
        )
    return reference


def _origin_from_corners(path: Path, corners: NDArray[np.float64], scan: Scan) -> NDArray[np.float64]:
    if corners.shape != scan.positions.shape:
        raise InputError(
            f"{path}: 'topleft_px' has shape {corners.shape}, expected {scan.positions.shape}, one for each "
            f"pattern of {scan.name}"
        )
    return _shift(path, window_corners(scan.positions, scan.size) - corners, scan)


def _reference(path: Path, reference_object: NDArray, origin: NDArray) -> Reference:
    if reference_object.ndim != 2 or reference_object.size == 0:
        raise InputError(f"{path}: 'object' has shape {reference_object.shape}, expected [rows, columns]")
    whole = in_single_precision(reference_object, f"{path}: 'object'")
    if not np.isfinite(whole).all():
        raise InputError(f"{path}: 'object' holds NaN or infinity, expected finite values")
    if np.shape(origin) != (2,) or origin.dtype.kind not in "fiu" or not np.isfinite(origin).all():
        values = reprlib.repr(np.ravel(origin).tolist())
        raise InputError(
            f"{path}: origin is {values} of shape {np.shape(origin)}, expected finite (row, column)"
        )
    return Reference(whole, (float(origin[0]), float(origin[1])))
