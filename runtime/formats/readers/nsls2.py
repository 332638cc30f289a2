"""NSLS-II (HXN, CSX): HDF5 with amplitudes and everything at the root.

diffamp
    [n, rows, columns] **amplitudes**; the direct beam is in the corner [0, 0], unless the mean pattern shows it in the
    centre.
points
    [2, n], (x, y) = (column, row) in **micrometres**.
lambda_nm, z_m, ccd_pixel_um
    wavelength (nm), distance of the detector (m) and its pixel (um), optional; the object pixel size is
    wavelength * distance / (N * detector pixel).
"""

from __future__ import annotations

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.quantities import positive_number
from ptychonnx.runtime.formats.read_options import Conventions

__all__ = ["matches", "read"]


def matches(file: HDF5File) -> bool:
    """True if the file has amplitudes and positions under the names of NSLS-II."""
    return file.has("diffamp") and file.has("points")


def read(file: HDF5File) -> RawScan:
    """Read a scan.

    Raises InputError if the positions have another shape, or a number is not positive.
    """
    amplitudes = file.dataset("amplitudes [n, rows, columns]", "diffamp")
    points = file.real("(x, y) in micrometres [2, n]", "points")
    if amplitudes.ndim != 3:
        raise InputError(f"{file.path}: diffamp has shape {amplitudes.shape}, expected [n, rows, columns]")
    if points.ndim != 2 or 2 not in points.shape:
        raise InputError(f"{file.path}: points has shape {points.shape}, expected [2, n]")
    wavelength = file.options.wavelength or _metres(file, "lambda_nm", 1e-9)
    distance = file.distance("z_m")
    detector_pixel = _metres(file, "ccd_pixel_um", 1e-6)
    known = wavelength is not None and distance is not None and detector_pixel is not None
    return RawScan(
        path=file.path,
        patterns=amplitudes,
        patterns_key=amplitudes.name,
        positions=points.T if len(points) == 2 else points,
        positions_key="points",
        conventions=Conventions.of_format(
            "NSLS-II", unit="um", axes="column,row", quantity="amplitude", dc="corner"
        ),
        pixel_size=(
            wavelength * distance / (min(amplitudes.shape[1:]) * detector_pixel)  # type: ignore[operator]
            if known
            else None
        ),
        wavelength=wavelength,
        distance=distance,
        detect_dc=True,
    )


def _metres(file: HDF5File, name: str, unit: float) -> float | None:
    dataset = file.first(name)
    if dataset is None:
        return None
    return unit * positive_number(file.load(dataset), f"{file.path}: {name}", "one positive number")
