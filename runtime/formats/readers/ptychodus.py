"""ptychodus: diffraction and product files, and training data files.

Diffraction (`diffraction.h5`, written by ptychodus 1.7 as `save_diffraction_data`)
    `patterns` [n, rows, columns] counts, DC at the centre, with attributes `detector_pixel_width_m` and
    `detector_pixel_height_m`; `indexes` int [n]; `bad_pixels` bool [rows, columns], True = bad.
Product (`product.h5`, as `save_product`)
    `probe_position_x_m`, `probe_position_y_m` [n] in **metres**, x = column, y = row, both growing with the index
    of the object's array; `probe_position_indexes` int [n], which pairs positions with patterns, in any order,
    possibly incomplete on either side; `probe` complex [coherent, modes, N, N], whose first coherent part is used;
    `object` complex [layers, rows, columns] or [rows, columns], whose layers are multiplied, with attributes
    `pixel_width_m`, `pixel_height_m`, `center_x_m`, `center_y_m`; the attribute `photon_energy_eV`
    (older: `probe_energy_eV`), and `detector_object_distance_m`, 0 if unknown.
    PtychoPINN writes products with the patterns inside: `raw_data/diffraction` (amplitudes), `raw_data/xcoords` and
    `raw_data/ycoords` in pixels of the object.
Training data (as `save_training_data`)
    `patterns`, `bad_pixels`, `probe` [modes, N, N], `object` [rows, columns], `probe_position_x_px` and
    `probe_position_y_px` [n] in **pixels** of the object, `object_pixel_width_m`, `photon_energy_eV`.

A position is the geometric middle (N - 1) / 2 of a window, and the centre of an object is its geometric middle too,
so that a position is ``(x - center_x) / pixel + (columns - 1) / 2`` in pixels of the object.

Either of the first two files may be named; the other one is `product.h5` or `diffraction.h5` in the same folder, or
the companion. The probe is scaled so that it explains the counts behind the object.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File
from ptychonnx.runtime.formats.containers.stacks import SelectedStack, Stack
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.quantities import ENERGY_UNITS, positive_number, wavelength_of_energy
from ptychonnx.runtime.formats.read_options import Conventions
from ptychonnx.runtime.formats.readers.probe import hdf5_probe

__all__ = [
    "combined_layers",
    "matches",
    "matches_training",
    "object_corner",
    "object_number",
    "placed_object",
    "read",
    "read_training",
]

_DIFFRACTION, _PRODUCT = "diffraction.h5", "product.h5"
_PATTERNS = "photon counts [n, rows, columns]"
_BUNDLED = "raw_data/diffraction"
_X, _Y, _INDEXES = "probe_position_x_m", "probe_position_y_m", "probe_position_indexes"
# A photon of less is one of extreme ultraviolet or visible light; as a number of keV it is an X-ray.
_LEAST_ENERGY_EV = 60.0
_X_PX, _Y_PX = "probe_position_x_px", "probe_position_y_px"


def matches(file: HDF5File) -> bool:
    """True if the file is a product, but not that of a pair such as pty-chi's, or the diffraction of one."""
    pair = file.path.stem.endswith("para") and not file.has(_BUNDLED)
    return (_is_product(file) and not pair) or {"patterns", "indexes", "bad_pixels"} <= set(file.root)


def matches_training(file: HDF5File) -> bool:
    """True if the file is ptychodus' training data."""
    return {"patterns", _X_PX, _Y_PX} <= set(file.root)


def read(file: HDF5File) -> RawScan:
    """Read diffraction and product, whichever of the two was named.

    Raises InputError if the other file or a dataset is missing, shapes disagree, or no position belongs to a pattern.
    """
    if _is_product(file) and file.has(_BUNDLED):
        return _read_bundle(file)
    if _is_product(file):
        product = file
        diffraction = file.companion(_DIFFRACTION, "the diffraction patterns of this product")
    else:
        diffraction = file
        product = file.companion(_PRODUCT, "the product with the positions of these patterns")
        if not _is_product(product):
            raise InputError(
                f"{product.path}: no dataset {_X}, {_Y} or {_INDEXES}, expected a ptychodus product"
            )
    counts = diffraction.dataset(_PATTERNS, "patterns")
    x, y, indexes = product.vectors("float [n] in metres", _X, _Y, _INDEXES)
    unique, place, samples = np.unique(indexes, return_inverse=True, return_counts=True)
    if 1 < len(unique) < len(indexes):
        # As ptychodus does: a stage was read several times while a pattern was measured.
        x, y, indexes = np.bincount(place, x) / samples, np.bincount(place, y) / samples, unique
        product.notes.append(f"positions: mean of {samples.min()} to {samples.max()} with the same index")
    stack, rows = _paired(diffraction, product, counts, indexes)
    known_object, pixel_size, corner = placed_object(product)
    if len(rows) < max(len(counts), len(x)):
        product.notes.append(
            f"patterns: {len(rows)} of {len(counts)} have one of the {len(x)} positions by their index, the others are "
            "left out"
        )
    attributes = product.root.attrs
    energy = attributes.get("photon_energy_eV", attributes.get("probe_energy_eV", 0.0))
    return RawScan(
        path=file.path,
        patterns=stack,
        patterns_key=counts.name,
        positions=np.stack([x - corner[1], y - corner[0]], axis=1)[rows],
        positions_key=f"{_X} and {_Y}",
        conventions=Conventions.of_format("ptychodus", unit="m", axes="column,row"),
        offset="middle",
        probe=hdf5_probe(product, "probe"),
        mask=_mask(diffraction),
        known_object=known_object,
        pixel_size=pixel_size,
        wavelength=_wavelength(product, energy),
        distance=_distance(product),
        notes=tuple(product.notes),
    )


def _read_bundle(file: HDF5File) -> RawScan:
    """A product that PtychoPINN writes: amplitudes inside, positions as in PtychoPINN's own files."""
    amplitudes = file.dataset("amplitudes [n, N, N]", _BUNDLED)
    x, y = file.vectors("float [n] in pixels", "raw_data/xcoords", "raw_data/ycoords")
    return RawScan(
        path=file.path,
        patterns=amplitudes,
        patterns_key=amplitudes.name,
        positions=np.stack([x, y], axis=1),
        positions_key="raw_data/xcoords and raw_data/ycoords",
        conventions=Conventions.of_format(
            "PtychoPINN",
            unit="px",
            axes="column,row",
            quantity="counts" if amplitudes.dtype.kind in "iu" else "amplitude",
        ),
        probe=hdf5_probe(file, "probe"),
        known_object=combined_layers(file) if file.has("object") else None,
        pixel_size=object_number(file, "pixel_width_m", positive=True) if file.has("object") else None,
        wavelength=_wavelength(file, file.root.attrs.get("photon_energy_eV", 0.0)),
        notes=(
            "patterns: those inside the product; positions are paired with them by their order",
            *file.notes,
        ),
    )


def read_training(file: HDF5File) -> RawScan:
    """Read ptychodus' training data."""
    counts = file.dataset(_PATTERNS, "patterns")
    x, y = file.vectors("float [n] in pixels", _X_PX, _Y_PX)
    energy = 0.0 if (stored := file.first("photon_energy_eV")) is None else file.load(stored)
    return RawScan(
        path=file.path,
        patterns=counts,
        patterns_key=counts.name,
        positions=np.stack([x, y], axis=1),
        positions_key=f"{_X_PX} and {_Y_PX}",
        conventions=Conventions.of_format("ptychodus", unit="px", axes="column,row"),
        offset="middle",
        probe=hdf5_probe(file, "probe"),
        mask=_mask(file),
        known_object=combined_layers(file) if file.has("object") else None,
        pixel_size=file.length("object_pixel_width_m"),
        wavelength=_wavelength(file, energy),
        notes=tuple(file.notes),
    )


def combined_layers(file: HDF5File) -> NDArray[np.complex64]:
    """`object` [rows, columns]; layers along the beam are multiplied."""
    layers = file.complex("complex [layers, rows, columns]", "object")
    # A product beyond the range of float32 is refused like an infinite value.
    with np.errstate(invalid="ignore", over="ignore"):
        whole = np.prod(layers, axis=0) if layers.ndim == 3 else layers
    if whole.ndim != 2 or layers.size == 0:
        raise InputError(f"{file.path}: object has shape {layers.shape}, expected [layers, rows, columns]")
    return whole


def object_corner(
    centre: tuple[float, float], shape: tuple[int, ...], pixel_size: float
) -> tuple[float, float]:
    """Position (row, column) of pixel [0, 0] in metres, from that of the geometric middle of the object."""
    row, column = (
        middle - (length - 1) / 2 * pixel_size for middle, length in zip(centre, shape, strict=True)
    )
    return row, column


def object_number(file: HDF5File, name: str, *, positive: bool = False, default: float = np.nan) -> float:
    """An attribute of `object` that holds one finite number of metres."""
    value = np.asarray(file.dataset("an object", "object").attrs.get(name, default))
    where = f"{file.path}: attribute {name} of object"
    if positive:
        return positive_number(value, where, "a positive number of metres")
    if value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        raise InputError(f"{where} is {value.tolist()}, expected a number of metres")
    return float(value.item())


def placed_object(product: HDF5File) -> tuple[NDArray[np.complex64], float, tuple[float, float]]:
    """The object, the side of its pixels, and the position (row, column) of its pixel [0, 0], in metres."""
    whole = combined_layers(product)
    width = object_number(product, "pixel_width_m", positive=True)
    height = object_number(product, "pixel_height_m", positive=True)
    if not np.isclose(width, height, rtol=1e-3, atol=0):
        raise InputError(
            f"{product.path}: pixels of the object are {width:g} x {height:g} m, expected square ones"
        )
    centre = (object_number(product, "center_y_m"), object_number(product, "center_x_m"))
    return whole, width, object_corner(centre, whole.shape, width)


def _is_product(file: HDF5File) -> bool:
    return {_INDEXES, _X, _Y} <= set(file.root)


def _paired(
    diffraction: HDF5File, product: HDF5File, counts: h5py.Dataset, of_positions: NDArray[np.float64]
) -> tuple[Stack, NDArray[np.intp]]:
    """The patterns that have a position, and the row of each one's position; `of_positions` are their indexes."""
    of_patterns = diffraction.real("int [n]", "indexes")
    for file, name, indexes in ((diffraction, "indexes", of_patterns), (product, _INDEXES, of_positions)):
        if indexes.ndim != 1 or len(np.unique(indexes)) != len(indexes):
            raise InputError(
                f"{file.path}: {name} has shape {indexes.shape} with repetitions, expected [n], each once"
            )
    if counts.ndim != 3 or len(counts) != len(of_patterns):
        raise InputError(
            f"{diffraction.path}: patterns has shape {counts.shape}, expected ({len(of_patterns)}, rows, columns)"
        )
    _, kept, rows = np.intersect1d(of_patterns, of_positions, assume_unique=True, return_indices=True)
    if not len(kept):
        raise InputError(
            f"{product.path}: no entry of {_INDEXES} is one of {diffraction.path}: indexes, expected positions of "
            "the same scan"
        )
    order = np.argsort(kept)
    stack = counts if len(kept) == len(of_patterns) else SelectedStack(counts, kept[order])
    return stack, rows[order]


def _mask(file: HDF5File) -> NDArray[np.bool_] | None:
    bad = file.first("bad_pixels")
    if bad is None:
        return None
    if bad.dtype != np.bool_ or bad.ndim != 2:
        raise InputError(
            f"{file.path}: bad_pixels is {bad.dtype} of shape {bad.shape}, expected bool [rows, columns]"
        )
    return ~file.load(bad)


def _distance(product: HDF5File) -> float | None:
    """From the sample to the detector, in metres; ptychodus writes 0 if it is unknown."""
    value = np.asarray(product.root.attrs.get("detector_object_distance_m", 0.0))
    known = value.size == 1 and value.dtype.kind in "fiu" and 0 < abs(value.item()) < np.inf
    # Some writers count it against the beam.
    return abs(float(value.item())) if known else None


def _wavelength(file: HDF5File, electron_volts: Any) -> float | None:
    """In metres; ptychodus writes an energy of 0 if it is unknown."""
    value = np.asarray(electron_volts)
    if value.size == 1 and value.dtype.kind in "fiu" and value.item() == 0:
        return None
    where = f"{file.path}: photon_energy_eV"
    energy = positive_number(value, where, "one positive energy, or 0 if unknown")
    if energy < _LEAST_ENERGY_EV:
        other = wavelength_of_energy(ENERGY_UNITS["keV"] * energy)
        file.notes.append(f"energy: {energy:g} eV; is it in keV? Then it is --wavelength {other:.6g}")
    return wavelength_of_energy(ENERGY_UNITS["eV"] * energy)
