"""Scans of ptychodus: its diffraction and product files, and its training data file.

Diffraction (`diffraction.h5`, written by ptychodus 1.7 as `save_diffraction_data`)
    `patterns` [n, rows, columns] counts, DC at the centre, with attributes `detector_pixel_width_m` and
    `detector_pixel_height_m`; `indexes` int [n]; `bad_pixels` bool [rows, columns], True = bad.
Product (`product.h5`, as `save_product`)
    `probe_position_x_m`, `probe_position_y_m` [n] in **metres**, x = column, y = row, both growing with the index
    of the object's array; `probe_position_indexes` int [n], by which positions and patterns are paired, in any
    order, some of them possibly missing on one side; `probe` complex [coherent, modes, N, N], whose first coherent
    part is taken; `object` complex [layers, rows, columns] or [rows, columns], of which layers are multiplied, with
    attributes `pixel_width_m`, `pixel_height_m`, `center_x_m`, `center_y_m`; the attributes `photon_energy_eV`
    (older: `probe_energy_eV`).
Training data (as `save_training_data`)
    `patterns`, `bad_pixels`, `probe` [modes, N, N], `object` [rows, columns], `probe_position_x_px` and
    `probe_position_y_px` [n] in **pixels** of the object, `object_pixel_width_m`, `photon_energy_eV`.

A position means the geometric middle (N - 1) / 2 of a window, and the centre of an object its geometric middle too,
so that a position is ``(x - center_x) / pixel + (columns - 1) / 2`` in pixels of the object.

Either of the first two files may be named; the other one is `product.h5` or `diffraction.h5` in the same folder, or
given as the companion. The probe is scaled so that it explains the counts behind the object.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import Source
from ptychonnx.runtime.formats.containers.stacks import Picked, Stack
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.read_options import Conventions

__all__ = [
    "ELECTRON_VOLT_METRES",
    "matches",
    "matches_training",
    "number_of",
    "placed_object",
    "read",
    "read_training",
]

ELECTRON_VOLT_METRES = 1.23984198e-6  # h c in eV m
_DIFFRACTION, _PRODUCT = "diffraction.h5", "product.h5"
_PATTERNS = "photon counts [n, rows, columns]"


def matches(file: h5py.File) -> bool:
    """True if the file is a product or the diffraction of one."""
    return _is_product(file) or _is_diffraction(file)


def matches_training(file: h5py.File) -> bool:
    """True if the file is ptychodus' training data."""
    return {"patterns", "probe_position_x_px", "probe_position_y_px"} <= set(file)


def read(source: Source) -> RawScan:
    """Read diffraction and product, whichever of both was named.

    Raises
    ------
    InputError
        If the other file or a dataset is missing, shapes disagree, or no position belongs to a pattern.
    """
    if _is_product(source.file):
        product = source
        patterns = source.beside(_DIFFRACTION, "the diffraction patterns of this product")
    else:
        patterns = source
        product = source.beside(_PRODUCT, "the product with the positions of these patterns")
        if not _is_product(product.file):
            raise InputError(
                f"{product.path}: no dataset probe_position_x_m, probe_position_y_m or probe_position_indexes, "
                "expected a ptychodus product"
            )
    counts = patterns.dataset(_PATTERNS, "patterns")
    stack, chosen = _paired(patterns, product, counts)
    x = product.real("float [n] in metres", "probe_position_x_m").astype(np.float64)
    y = product.real("float [n] in metres", "probe_position_y_m").astype(np.float64)
    if not x.shape == y.shape == product.file["probe_position_indexes"].shape:
        raise InputError(
            f"{product.path}: probe_position_x_m has shape {x.shape} and probe_position_y_m {y.shape}, expected "
            f"{product.file['probe_position_indexes'].shape} like probe_position_indexes"
        )
    known, pixel, corner = placed_object(product)
    attributes = product.file.attrs
    energy = attributes.get("photon_energy_eV", attributes.get("probe_energy_eV", 0.0))
    return RawScan(
        path=source.path,
        patterns=stack,
        patterns_key=counts.name,
        positions=np.stack([x - corner[1], y - corner[0]], axis=1)[chosen],
        positions_key="probe_position_x_m and probe_position_y_m",
        conventions=Conventions.of_format("ptychodus", unit="m", axes="column,row"),
        offset="middle",
        probe=first_probe(product) if product.has("probe") and product.file["probe"].size else None,
        mask=_mask(patterns),
        known_object=known,
        pixel_size=pixel,
        wavelength=_wavelength(product, energy),
    )


def read_training(source: Source) -> RawScan:
    """Read ptychodus' training data."""
    counts = source.dataset(_PATTERNS, "patterns")
    x = source.real("float [n] in pixels", "probe_position_x_px").astype(np.float64)
    y = source.real("float [n] in pixels", "probe_position_y_px").astype(np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise InputError(
            f"{source.path}: probe_position_x_px has shape {x.shape} and probe_position_y_px {y.shape}, "
            "expected [n] both"
        )
    energy = source.file["photon_energy_eV"][()] if source.has("photon_energy_eV") else 0.0
    return RawScan(
        path=source.path,
        patterns=counts,
        patterns_key=counts.name,
        positions=np.stack([x, y], axis=1),
        positions_key="probe_position_x_px and probe_position_y_px",
        conventions=Conventions.of_format("ptychodus", unit="px", axes="column,row"),
        offset="middle",
        probe=first_probe(source) if source.has("probe") else None,
        mask=_mask(source),
        known_object=flat_object(source) if source.has("object") else None,
        pixel_size=source.length("object_pixel_width_m"),
        wavelength=_wavelength(source, energy),
    )


def placed_object(product: Source) -> tuple[NDArray[np.complex64], float, tuple[float, float]]:
    """The object, the side of its pixels (m), and the position (row, column) of its pixel [0, 0] (m)."""
    known = flat_object(product)
    attributes = product.file["object"].attrs
    width = number_of(product, attributes, "pixel_width_m", positive=True)
    height = number_of(product, attributes, "pixel_height_m", positive=True)
    if not np.isclose(width, height, rtol=1e-3):
        raise InputError(
            f"{product.path}: pixels of the object are {width:g} x {height:g} m, expected square ones"
        )
    centre = [number_of(product, attributes, f"center_{axis}_m") for axis in "yx"]
    corner = [middle - (length - 1) / 2 * width for middle, length in zip(centre, known.shape, strict=True)]
    return known, width, (corner[0], corner[1])


def flat_object(source: Source) -> NDArray[np.complex64]:
    """`object` [rows, columns]; layers along the beam are multiplied."""
    known = source.complex("complex [layers, rows, columns]", "object")
    if known.ndim == 3:
        known = np.prod(known, axis=0)
    if known.ndim != 2 or known.size == 0:
        raise InputError(f"{source.path}: object has shape {known.shape}, expected [layers, rows, columns]")
    return known


def first_probe(source: Source) -> NDArray[np.complex64]:
    """`probe` [modes, N, N]; of several coherent parts the first."""
    probe = source.complex("complex [coherent, modes, N, N]", "probe")
    if probe.ndim == 4:
        probe = probe[0]
    if probe.ndim == 2:
        probe = probe[None]
    if probe.ndim != 3:
        raise InputError(f"{source.path}: probe has shape {probe.shape}, expected [coherent, modes, N, N]")
    return probe


def _is_product(file: h5py.File) -> bool:
    return {"probe_position_indexes", "probe_position_x_m", "probe_position_y_m"} <= set(file)


def _is_diffraction(file: h5py.File) -> bool:
    return {"patterns", "indexes", "bad_pixels"} <= set(file)


def _paired(patterns: Source, product: Source, counts: h5py.Dataset) -> tuple[Stack, NDArray[np.intp]]:
    """The patterns that have a position, and for each of them the row of its position."""
    ours = patterns.real("int [n]", "indexes")
    theirs = product.real("int [n]", "probe_position_indexes")
    for name, found in (("indexes", ours), ("probe_position_indexes", theirs)):
        if found.ndim != 1 or len(np.unique(found)) != len(found):
            where = patterns.path if found is ours else product.path
            raise InputError(
                f"{where}: {name} has shape {found.shape} with repetitions, expected [n], each once"
            )
    if counts.ndim != 3 or len(counts) != len(ours):
        raise InputError(
            f"{patterns.path}: patterns has shape {counts.shape}, expected ({len(ours)}, rows, columns)"
        )
    row_of = {int(index): row for row, index in enumerate(theirs)}
    kept = np.array([row for row, index in enumerate(ours) if int(index) in row_of], dtype=np.intp)
    if not len(kept):
        raise InputError(
            f"{product.path}: no entry of probe_position_indexes is one of {patterns.path}: indexes, "
            "expected positions of the same scan"
        )
    chosen = np.array([row_of[int(ours[row])] for row in kept], dtype=np.intp)
    return (counts if len(kept) == len(ours) else Picked(counts, kept)), chosen


def _mask(source: Source) -> NDArray[np.bool_] | None:
    if not source.has("bad_pixels"):
        return None
    bad = source.file["bad_pixels"]
    if bad.dtype != np.bool_ or bad.ndim != 2:
        raise InputError(
            f"{source.path}: bad_pixels is {bad.dtype} of shape {bad.shape}, expected bool [rows, columns]"
        )
    return ~bad[()]


def _wavelength(source: Source, energy: Any) -> float | None:
    """In metres; ptychodus writes an energy of 0 if it is unknown."""
    value = np.asarray(energy)
    if value.size == 1 and value.dtype.kind in "fiu" and value.item() == 0:
        return None
    return ELECTRON_VOLT_METRES / source.positive(
        energy, "photon_energy_eV", "one positive energy, or 0 if unknown"
    )


def number_of(
    source: Source, attributes: Any, name: str, *, positive: bool = False, default: float = np.nan
) -> float:
    """An attribute of the object that is one finite number."""
    value = np.asarray(attributes.get(name, default))

    if (
        value.size != 1
        or value.dtype.kind not in "fiu"
        or not np.isfinite(value).all()
        or (positive and value <= 0)
    ):
        kind = "a positive number" if positive else "a number"
        raise InputError(
            f"{source.path}: attribute {name} of object is {value.tolist()}, expected {kind} of metres"
        )
    return float(value.item())
