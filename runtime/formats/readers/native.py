"""ptychonnx's own scan file: an NPZ archive in exactly the conventions of `ptychonnx.runtime.scan.Scan`.

Keys
----
format
    The string ``ptychonnx-scan-1``.
diffraction
    float32 [n, N, N], amplitude, sqrt(photon counts), DC at [N // 2, N // 2].
positions
    float64 [n, 2], (row, column) in pixels of the windows' centres; rows grow downwards.
probe
    complex64 [modes, N, N], optional, in sqrt(photons).
mask
    bool [N, N], optional, True = valid.
reference_object, reference_origin
    complex64 [rows, columns] and float64 [2] (row, column), optional, together.
labels
    complex64 [n, N, N], optional, the object in each window.
pixel_size, wavelength
    float64 scalars in metres, optional.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.npz import Archive
from ptychonnx.runtime.formats.quantities import positive_number
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.amplitudes import Amplitudes, LazyAmplitudes

__all__ = ["MARKER", "matches", "read", "write_scan"]

MARKER = "ptychonnx-scan-1"
# Number of patterns that are read, and written, together.
_BLOCK = 64


def matches(archive: Archive) -> bool:
    """True if the archive has our three mandatory keys."""
    return {"format", "diffraction", "positions"} <= archive.keys


def read(archive: Archive) -> Scan:
    """Read a scan.

    Raises InputError on another marker, a missing key, or content that `Scan` refuses.
    """
    marker = str(archive.array("format", f"the string {MARKER}"))
    if marker != MARKER:
        raise InputError(f"{archive.path}: 'format' is {marker!r}, expected {MARKER!r}")
    reference = None
    if "reference_object" in archive or "reference_origin" in archive:
        origin = archive.real("reference_origin", "(row, column) of the reference, [2]")
        if origin.shape != (2,):
            raise InputError(f"{archive.path}: 'reference_origin' has shape {origin.shape}, expected (2,)")
        reference = Reference(
            archive.complex("reference_object", "complex [rows, columns]"),
            (float(origin[0]), float(origin[1])),
        )
    return Scan(
        diffraction=_diffraction(archive),
        positions=archive.real("positions", "float64 (row, column) [n, 2]").astype(np.float64),
        probe=archive.complex("probe", "complex [modes, N, N]") if "probe" in archive else None,
        mask=_mask(archive) if "mask" in archive else None,
        reference=reference,
        pixel_size=_metres(archive, "pixel_size"),
        wavelength=_metres(archive, "wavelength"),
        name=archive.path.name,
        labels=archive.complex("labels", "complex [n, N, N]") if "labels" in archive else None,
    )


def _diffraction(archive: Archive) -> Amplitudes:
    """The array if it is compressed; otherwise it stays in the file."""
    stack = archive.stack("diffraction", "float32 amplitudes [n, N, N]")
    if not isinstance(stack, np.memmap) or stack.ndim != 3 or stack.dtype != np.float32:
        return stack
    return LazyAmplitudes(
        stack.shape, lambda start, stop: np.array(stack[start:stop]), _BLOCK, archive.path.name
    )


def _mask(archive: Archive) -> NDArray[np.bool_]:
    mask = archive.array("mask", "bool [N, N]")
    if mask.dtype != np.bool_:
        raise InputError(
            f"{archive.path}: 'mask' is {mask.dtype}, expected bool, True where a pixel is valid"
        )
    return mask


def _metres(archive: Archive, key: str) -> float | None:
    if key not in archive:
        return None
    value = archive.real(key, "a length in metres")
    return positive_number(value, f"{archive.path}: {key!r}", "one positive length in metres")


def write_scan(path: StrPath, scan: Scan) -> None:
    """Write a scan as compressed NPZ, atomically; equal scans yield equal bytes.

    Raises
    ------
    InputError
        If the file cannot be written, or its name does not end in ``.npz`` (NumPy would silently add the ending).

    Examples
    --------
    >>> import ptychonnx
    >>> ptychonnx.write_scan("lines.npz", ptychonnx.simulate_lines(grid=3))
    >>> len(ptychonnx.read_scan("lines.npz"))
    9
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InputError(f"{path}: expected a file name that ends in .npz")
    if not isinstance(scan, Scan):
        raise InputError(f"{path}: got {type(scan).__name__} to write, expected a Scan")
    arrays: dict[str, NDArray | Amplitudes] = {
        "format": np.array(MARKER),
        "diffraction": scan.diffraction,
        "positions": scan.positions.astype(np.float64),
    }
    if scan.probe is not None:
        arrays["probe"] = scan.probe.astype(np.complex64)
    if scan.mask is not None:
        arrays["mask"] = scan.mask.astype(np.bool_)
    if scan.reference is not None:
        arrays["reference_object"] = scan.reference.object.astype(np.complex64)
        arrays["reference_origin"] = np.asarray(scan.reference.origin, dtype=np.float64)
    if scan.labels is not None:
        arrays["labels"] = scan.labels.astype(np.complex64)
    for key, length in (("pixel_size", scan.pixel_size), ("wavelength", scan.wavelength)):
        if length is not None:
            arrays[key] = np.array(length, dtype=np.float64)
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            # A member without a date gets 1980-01-01, so that the bytes depend on the content alone.
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                _write_array(member, array)


def _write_array(member: IO[bytes], array: NDArray | Amplitudes) -> None:
    """Like `numpy.savez_compressed`, but patterns in a file are read a block at a time."""
    if isinstance(array, np.ndarray):
        np.lib.format.write_array(member, array, allow_pickle=False)
        return
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(member, header)
    for start in range(0, len(array), _BLOCK):
        member.write(array[start : start + _BLOCK].tobytes())
