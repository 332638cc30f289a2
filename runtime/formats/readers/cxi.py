"""CXI files: HDF5 in the layout of the Coherent X-ray Imaging Data Bank.

Read
----
entry_1/data_1/data, or entry_1/instrument_1/detector_1/data
    [n, N, N], or [slow, fast, N, N] of a raster, photon counts, integers of any width or floats; may be a link or
    compressed. DC is taken to be at [N // 2, N // 2], or at [0, 0] if the dataset's attribute `is_fft_shifted` is set.
translation, in entry_1/data_1, entry_1/sample_1/geometry_1 or entry_1/instrument_1/detector_1 (first found)
    [n, 3] or [n, 2], (x, y[, z]) of the **sample** in **metres**, [3, n] as PyNX writes it, or [slow, fast, 3]. z is
    ignored. If it is missing, positions and probe are read from the companion, or from `product.cxi` in the same
    folder: ptychodus writes two files.
entry_1/instrument_1/detector_1/mask
    optional bit field [N, N]: a pixel is good if no bit other than 0x1000 (signal above background) is set. Bad
    pixels become amplitude 0 and may hold anything: NaN, -1 or 2**32 - 1.
entry_1/instrument_1/detector_1/dark, data_dark
    backgrounds of PyNX and of cdtools, which are named and not subtracted.
entry_1/instrument_1/detector_1/distance, x_pixel_size, y_pixel_size
    metres; the two sizes must agree, and one of them is enough, or none if `basis_vectors` have their length.
entry_1/instrument_1/beam_1/incident_wavelength, or source_1/wavelength
    metres; else beam_1/incident_energy or source_1/energy, joules, or eV and keV where the number says so.
entry_1/instrument_1/source_1/illumination, or source_1/probe
    optional, complex [N, N], [modes, N, N] or [coherent, modes, N, N] (the first coherent part is used), in the
    sample plane, of any power: it is scaled so that sum |P|^2 is the mean number of counts in a pattern.
entry_1/instrument_1/detector_1/basis_vectors
    optional, [2, 3] or [3, 2]: the steps to the next row and to the next column of the detector.

Lengths and energies with a `units` attribute are converted.

Axes and sign
-------------
The CXI frame has z along the beam, y up, and x to the left when looking along the beam. Rows of a detector
run down (-y) and columns to the right (-x) unless `basis_vectors` says otherwise. Translations are those of
the sample: when it moves up, the beam meets a lower part of it. Together,

    row = +y / pixel_size,  column = +x / pixel_size

in the default geometry, and -(translation . unit basis vector) / pixel_size in general, with pixel_size =
wavelength * distance / (N * detector pixel). cdtools reads these files in the same way: it negates the
translations and projects them onto the same basis. Only differences between positions are meaningful; the first
window is placed in the corner of the canvas.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File, texts
from ptychonnx.runtime.formats.containers.stacks import RasterStack
from ptychonnx.runtime.formats.conversion.detector_geometry import check_wavelength, object_pixel_size
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.read_options import Convention, Conventions
from ptychonnx.runtime.formats.readers.probe import hdf5_probe

__all__ = ["matches", "read"]

_INSTRUMENT = "entry_1/instrument_1"
_DETECTOR = f"{_INSTRUMENT}/detector_1"
_SOURCE = f"{_INSTRUMENT}/source_1"
_DATA = ("entry_1/data_1/data", f"{_DETECTOR}/data")
_TRANSLATION = (
    "entry_1/data_1/translation",
    "entry_1/sample_1/geometry_1/translation",
    f"{_DETECTOR}/translation",
)
# Backgrounds of PyNX, and of ALS and cdtools.
_DARK = (f"{_DETECTOR}/dark", f"{_DETECTOR}/data_dark")
_PROBE = (f"{_SOURCE}/illumination", f"{_SOURCE}/probe")
_WAVELENGTH = (f"{_INSTRUMENT}/beam_1/incident_wavelength", f"{_SOURCE}/wavelength")
_ENERGY = (f"{_INSTRUMENT}/beam_1/incident_energy", f"{_SOURCE}/energy")
_PRODUCT = "product.cxi"
_OTHER_ENTRY = re.compile(r"entry_(?!1$)\d+$")
_SIGNAL_ABOVE_BACKGROUND = 0x1000
# Basis vectors that are shorter, in metres, lead from pixel to pixel; others are directions.
_LARGEST_PIXEL = 0.01


def matches(file: HDF5File) -> bool:
    """True if the file has the patterns of a CXI file."""
    return file.first(*_DATA) is not None


def read(file: HDF5File) -> RawScan:
    """Read a scan.

    Raises InputError if something above is missing or has the wrong shape.
    """
    data = file.dataset("photon counts [n, N, N]", *_DATA)
    if data.ndim not in (3, 4):
        raise file.shape_error(data, "square patterns [n, N, N]")
    shape = data.shape[-2:]
    wavelength, pixel_size = _geometry(file, min(shape))
    # ptychodus writes diffraction.cxi and product.cxi: positions and probe are in the second.
    second = file.options.companion or file.path.with_name(_PRODUCT).is_file()
    split = second and not any(map(file.has, _TRANSLATION))
    product = file.companion(_PRODUCT, "the positions of these patterns") if split else file
    translation = product.dataset("positions of the sample in metres [n, 3]", *_TRANSLATION)
    corner = _is_true(data.attrs.get("is_fft_shifted", False), f"{file.path}: {data.name} is_fft_shifted")
    others = [
        name for name in sorted(file.names()) if _OTHER_ENTRY.match(name) and file.has(f"{name}/data_1/data")
    ]
    if others:
        file.notes.append(f"entry: entry_1, not {', '.join(others)}")
    conventions = Conventions.of_format(
        "CXI", unit="m", axes="row,column", dc="corner" if corner else "centre"
    )
    projected = Convention("row,column", "(x, y) of the sample on the basis vectors of the detector")
    if (dark := next(filter(file.has, _DARK), None)) is not None:
        file.notes.append(f"background: {dark} is left out: subtract it from the patterns if they hold it")
    return RawScan(
        path=file.path,
        patterns=data if data.ndim == 3 else RasterStack(data),
        patterns_key=data.name,
        # The beam meets the part of the sample that is opposite to the sample's own motion.
        positions=-(product.translations(translation, data.shape[:-2]) @ _basis(file)[:, :2].T),
        positions_key=translation.name,
        conventions=replace(conventions, axes=projected),
        probe=hdf5_probe(product, *_PROBE),
        mask=file.good_pixels(shape, f"{_DETECTOR}/mask", ignored=_SIGNAL_ABOVE_BACKGROUND),
        pixel_size=pixel_size,
        wavelength=wavelength,
        distance=file.distance(f"{_DETECTOR}/distance"),
        hint=f"mark bad pixels in {_DETECTOR}/mask (0 = good), or ",
        notes=tuple(file.notes),
    )


def _is_true(value: Any, where: str) -> bool:
    """A flag, which some writers store as text."""
    array = np.asarray(value)
    text = texts(array)[0] if array.size == 1 else "None"
    for answer, words in ((True, ("true", "yes", "1")), (False, ("false", "no", "0", ""))):
        if text.strip().lower().removesuffix(".0") in words:
            return answer
    raise InputError(f"{where} is {text[:40] if array.size == 1 else array.shape}, expected true or false")


def _geometry(file: HDF5File, size: int) -> tuple[float | None, float | None]:
    """Wavelength and object pixel size in metres, as far as the options do not replace the pixel size."""
    wavelength = file.wavelength(_WAVELENGTH, _ENERGY)
    if wavelength is None and file.options.pixel_size is None:
        raise InputError(
            f"{file.path}: no dataset {' or '.join(_WAVELENGTH + _ENERGY)}, expected metres or joules, or "
            "--wavelength, or the --pixel-size of the object"
        )
    lengths = np.linalg.norm(_basis(file, normed=False), axis=-1)
    step = float(lengths[0]) if lengths.max() < _LARGEST_PIXEL else None
    if wavelength is not None:
        check_wavelength(wavelength, str(file.path))
    pixel_size = object_pixel_size(file, _DETECTOR, wavelength, size, step)
    if pixel_size is None and file.options.pixel_size is None:
        missing = "x_pixel_size or y_pixel_size" if file.has(f"{_DETECTOR}/distance") else "distance"
        raise InputError(f"{file.path}: no dataset {_DETECTOR}/{missing}, expected metres, or --pixel-size")
    return wavelength, pixel_size


def _basis(file: HDF5File, *, normed: bool = True) -> NDArray[np.float64]:
    """Vectors (x, y, z) to the next row and to the next column of the detector, [2, 3], in the CXI frame."""
    dataset = file.first(f"{_DETECTOR}/basis_vectors")
    if dataset is None:
        return np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    basis = file.real("two vectors (x, y, z)", dataset.name).astype(np.float64)
    if basis.shape == (3, 2):
        basis = basis.T
    lengths = np.linalg.norm(basis, axis=-1, keepdims=True)
    if basis.shape != (2, 3) or not np.isfinite(basis).all() or not (lengths > 0).all():
        raise InputError(
            f"{file.path}: {dataset.name} has shape {basis.shape}, expected two vectors (x, y, z), [2, 3] or [3, 2]"
        )
    return basis / lengths if normed else basis
