"""Which format a file has, found by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.formats import cxi, native, ptychopinn, tike
from runtime.formats.archive import Archive, complex_array, is_archive, open_archive
from runtime.formats.reference import read_reference
from runtime.formats.scaling import probe_with_power
from runtime.scan import Scan

__all__ = ["FORMATS", "ScanFormat", "read_scan"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class ScanFormat:
    """One kind of scan file.

    Attributes
    ----------
    name, keys
        For messages: what it is called, and by which keys it is recognised.
    container
        ``npz``: `matches` and `read` get a `runtime.formats.archive.Archive`; ``hdf5``: an `h5py.File`.
    matches
        True if the open file has this format.
    read
        From the open file and its path to the scan.
    """

    name: str
    keys: str
    container: Literal["npz", "hdf5"]
    matches: Callable[[Any], bool]
    read: Callable[[Any, Path], Scan]


def _of_archive(read: Callable[[Archive], Scan]) -> Callable[[Archive, Path], Scan]:
    return lambda archive, path: read(archive)


# The first that matches wins, the strictest stand first.
FORMATS = (
    ScanFormat(
        "ptychonnx", "format, diffraction, positions", "npz", native.matches, _of_archive(native.read)
    ),
    ScanFormat(
        "PtychoPINN",
        "diffraction or diff3d, with xcoords and ycoords or coords_offsets",
        "npz",
        ptychopinn.matches,
        _of_archive(ptychopinn.read),
    ),
    ScanFormat("tike", "data, scan", "npz", tike.matches, _of_archive(tike.read)),
    ScanFormat("CXI", "entry_1/data_1/data", "hdf5", cxi.matches, cxi.read),
)


def read_scan(path: Path, *, reference: Path | None = None, probe: Path | None = None) -> Scan:
    """Read a scan from a file of any known format.

    Parameters
    ----------
    path
        NPZ (also .npz.bz2) or HDF5; the name does not matter.
    reference
        Object to compare with, see `runtime.formats.reference`; replaces one in the scan file.
    probe
        NPZ with `probe` complex [modes, N, N] or [N, N], in any unit; it replaces one in the scan file, scaled so
        that its power is the mean photons of a pattern, which makes the object's amplitude of the order of one.

    Raises
    ------
    InputError
        If a file is missing, damaged, of no known format, or breaks the rules of its format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected a scan file"
        )
    try:
        scan = _read(path)
    except OSError as error:
        raise InputError(f"{path}: damaged or unreadable ({error}), expected a complete file") from error
    if probe is not None:
        scan = replace(scan, probe=probe_with_power(_read_probe(Path(probe)), scan.diffraction))
    if reference is not None:
        scan = replace(scan, reference=read_reference(reference, scan))
    return scan


def _read(path: Path) -> Scan:
    if is_archive(path):
        with open_archive(path) as archive:
            for form in FORMATS:
                if form.container == "npz" and form.matches(archive):
                    return form.read(archive, path)
            raise _unrecognised(path, f"an NPZ archive of {', '.join(sorted(archive.keys)) or 'nothing'}")
    with path.open("rb") as start:
        if start.read(len(_HDF5)) != _HDF5:
            raise _unrecognised(path, "neither NPZ nor HDF5")
    with h5py.File(path, "r") as file:
        for form in FORMATS:
            if form.container == "hdf5" and form.matches(file):
                return form.read(file, path)
        raise _unrecognised(path, f"an HDF5 file of {', '.join(sorted(file)) or 'nothing'}")


def _unrecognised(path: Path, found: str) -> InputError:
    known = "; ".join(f"{form.name} ({form.container.upper()}: {form.keys})" for form in FORMATS)
    return InputError(f"{path}: not a known scan file: {found}, expected one of {known}")


def _read_probe(path: Path) -> NDArray[np.complex64]:
    if not path.is_file() or not is_archive(path):
        raise InputError(f"{path}: no NPZ file, expected one with 'probe' complex [modes, N, N]")
    with open_archive(path) as archive:
        probe = complex_array(archive, "probe", "complex [modes, N, N]")
    return probe[None] if probe.ndim == 2 else probe
