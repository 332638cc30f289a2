"""Scans in CXI files: HDF5 in the layout of the Coherent X-ray Imaging Data Bank.

Read
----
entry_1/data_1/data, or entry_1/instrument_1/detector_1/data
    [n, N, N], photon counts, integers of any width or floats; may be a link or compressed. DC is taken to be
    at [N // 2, N // 2], or at [0, 0] if the dataset's attribute `is_fft_shifted` is set.
translation, in entry_1/data_1, entry_1/sample_1/geometry_1 or entry_1/instrument_1/detector_1 (first found)
    [n, 3] or [n, 2], (x, y[, z]) of the **sample** in **metres**. z is ignored. If it is missing, the companion is
    asked for it and for the probe, or `product.cxi` in the same folder: ptychodus writes two files.
entry_1/instrument_1/detector_1/mask
    optional bit field [N, N]: a pixel is good if no bit is set but, at most, 0x1000 (signal above
    background). Bad pixels become amplitude 0 and are not looked at, so that NaN, -1 or 2**32 - 1 may stand
    there.
entry_1/instrument_1/detector_1/distance, x_pixel_size, y_pixel_size
    metres; the two sizes must agree, and one is enough.
entry_1/instrument_1/beam_1/incident_wavelength, or source_1/wavelength
    metres; else beam_1/incident_energy or source_1/energy, joules.
entry_1/instrument_1/source_1/illumination, or source_1/probe
    optional, complex [N, N], [modes, N, N] or [coherent, modes, N, N] (of which the first), in the plane of the
    sample, of any power: it is scaled so that sum |P|^2 is the mean number of counts in a pattern.
entry_1/instrument_1/detector_1/basis_vectors
    optional, [2, 3] or [3, 2]: the steps to the next row and to the next column of the detector.

Axes and sign
-------------
The CXI frame has z along the beam, y up, and x to the left for who looks along the beam. Rows of a detector
run down (-y) and columns to the right (-x) unless `basis_vectors` says otherwise. Translations are those of
the sample: when it moves up, the beam meets a lower part of it. Both signs together give

    row = +y / pixel_size,  column = +x / pixel_size

in the default geometry, and -(translation . unit basis vector) / pixel_size in general, with pixel_size =
wavelength * distance / (N * detector pixel). cdtools reads files in the same way: it negates the translations
and projects them on the same basis. Positions here start at the centre of a window in the canvas's corner;
only differences between positions mean anything.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import Source
from ptychonnx.runtime.formats.conversion.detector_geometry import Geometry
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.read_options import Conventions, Stated

__all__ = ["matches", "read"]

_DETECTOR = "entry_1/instrument_1/detector_1"
_SOURCE = "entry_1/instrument_1/source_1"
_DATA = ("entry_1/data_1/data", f"{_DETECTOR}/data")
_TRANSLATION = (
    "entry_1/data_1/translation",
    "entry_1/sample_1/geometry_1/translation",
    f"{_DETECTOR}/translation",
)
_PROBE = (f"{_SOURCE}/illumination", f"{_SOURCE}/probe")
_PRODUCT = "product.cxi"
_SIGNAL_ABOVE_BACKGROUND = 0x1000


def matches(file: h5py.File) -> bool:
    """True if the file has the group and the patterns of a CXI file."""
    return _first(file, _DATA) is not None


def read(source: Source) -> RawScan:
    """Read a scan.

    Raises
    ------
    InputError
        If something above is missing or has the wrong shape.
    """
    file, path = source.file, source.path
    data = _needed(file, path, _DATA, "photon counts [n, N, N]")
    if data.ndim != 3:
        raise InputError(f"{path}: {data.name} has shape {data.shape}, expected square patterns [n, N, N]")
    n, size = len(data), min(data.shape[1:])
    geometry = Geometry.from_file(file, path, size)
    # ptychodus writes diffraction.cxi and product.cxi: positions and probe are in the second.
    second = source.options.companion or path.with_name(_PRODUCT).is_file()
    split = _first(file, _TRANSLATION) is None and second
    other = source.beside(_PRODUCT, "the positions of these patterns") if split else source
    translation = _needed(other.file, other.path, _TRANSLATION, "positions of the sample in metres [n, 3]")
    if translation.ndim != 2 or len(translation) != n or translation.shape[1] not in (2, 3):
        raise InputError(
            f"{other.path}: {translation.name} has shape {translation.shape}, expected {(n, 3)} or {(n, 2)}, "
            "one (x, y, z) in metres for each pattern"
        )
    corner = bool(data.attrs.get("is_fft_shifted", False))
    known = Conventions.of_format("CXI", unit="m", axes="row,column", dc="corner" if corner else "centre")
    turned = Stated("row,column", "(x, y) of the sample on the basis vectors of the detector")
    return RawScan(
        path=path,
        patterns=data,
        patterns_key=data.name,
        positions=geometry.moved(translation[()]),
        positions_key=translation.name,
        conventions=replace(known, axes=turned),
        probe=_probe(other.file, other.path),
        mask=_mask(file, path, data.shape[1:]),
        pixel_size=geometry.pixel_size,
        wavelength=geometry.wavelength,
        hint=f"mark bad pixels in {_DETECTOR}/mask (0 = good), or ",
    )


def _first(file: h5py.File, names: tuple[str, ...]) -> h5py.Dataset | None:
    # `get` gives None for a link that leads nowhere.
    return next((file[name] for name in names if isinstance(file.get(name), h5py.Dataset)), None)


def _needed(file: h5py.File, path: Path, names: tuple[str, ...], expected: str) -> h5py.Dataset:
    dataset = _first(file, names)
    if dataset is None:
        raise InputError(f"{path}: no dataset {' or '.join(names)}, expected {expected}")
    return dataset


def _mask(file: h5py.File, path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    dataset = _first(file, (f"{_DETECTOR}/mask",))
    if dataset is None:
        return None
    if dataset.shape != shape or dataset.dtype.kind not in "iub":
        raise InputError(
            f"{path}: {dataset.name} is {dataset.dtype} of shape {dataset.shape}, expected integers of shape "
            f"{shape}, 0 = good"
        )
    return (dataset[()].astype(np.int64) & ~_SIGNAL_ABOVE_BACKGROUND) == 0


def _probe(file: h5py.File, path: Path) -> NDArray[np.complex64] | None:
    dataset = _first(file, _PROBE)
    if dataset is None:
        return None
    if dataset.dtype.kind != "c" or dataset.ndim not in (2, 3, 4):
        raise InputError(
            f"{path}: {dataset.name} is {dataset.dtype} of shape {dataset.shape}, expected complex [N, N], "
            "[modes, N, N] or [coherent, modes, N, N]"
        )
    probe = dataset[()].astype(np.complex64)
    if probe.ndim == 4:
        probe = probe[0]
    return probe[None] if probe.ndim == 2 else probe
