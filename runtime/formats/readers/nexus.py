"""NeXus files of the application definitions NXptycho and NXcxi_ptycho.

Recognised by `definition` in a group of class NXentry (`entry_1` by the definition, often `entry`) or NXsubentry.
Groups are found by their NX_class, so that their names do not matter: `instrument_1`, `detector_1`, `beam_1`,
`sample_1`.

Read
----
detector `data`
    [n, rows, columns] photon counts, or [slow, fast, rows, columns] for a raster. DC at the centre.
detector `pixel_mask` or `mask`
    optional bit field [rows, columns], 0 = good.
detector `x_pixel_size`, `y_pixel_size`, `distance`
    in the units of their `units` attribute, or in metres without one.
detector or sample `translation` (also in `geometry_1`, `data_1`)
    [n, 3] or [n, 2], (x, y[, z]) of the **sample** in metres or the `units` given. z is ignored.
sample `transformations/*`
    otherwise: axes of translation and rotation, each [n], [slow, fast], or one number, with `vector` (x, y, z), `units`
    and `depends_on`; together they move the sample.
beam `incident_wavelength` or `wavelength`, else `incident_beam_energy`, `incident_energy` or `energy`
    in the units of the attribute (m, nm, angstrom; eV, keV, J), or in metres without one; an energy without units is
    in that of J, keV and eV in which it is a photon's.

Frame and sign
--------------
As in CXI, z is along the beam, y up, and x to the left when looking along the beam. Rows of the detector run down and
columns to the right. When the sample moves up, the beam meets a lower part of it: row = +y / pixel, column =
+x / pixel. A stage that is wired the other way needs `positions_sign`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File, attribute_text, attribute_texts, texts
from ptychonnx.runtime.formats.containers.stacks import RasterStack, Stack
from ptychonnx.runtime.formats.conversion.detector_geometry import object_pixel_size
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan, check_raster
from ptychonnx.runtime.formats.quantities import ANGLE_UNITS, unit_factor
from ptychonnx.runtime.formats.read_options import Convention, Conventions

__all__ = ["matches", "read", "sample_positions"]

_DEFINITIONS = {"NXptycho", "NXcxi_ptycho"}
# Rotations of the sample that differ by less, in radians, are those of one projection.
_SAME_ANGLE = 2e-3
# Cosine between two axes from which on they are parallel.
_PARALLEL = 0.99


def matches(file: HDF5File) -> bool:
    """True if an entry names one of the two definitions."""
    return bool(_entries(file))


def read(file: HDF5File) -> RawScan:
    """Read the first such entry.

    Raises InputError if a dataset or a group is missing, or shapes disagree.
    """
    entry, *others = _entries(file)
    if others:
        file.notes.append(f"entry: {entry}, not {', '.join(others)}")
    instrument = _group(file, entry, "NXinstrument", "instrument_1")
    detector = _area_detector(file, instrument)
    data = file.dataset("photon counts [n, rows, columns]", f"{detector}/data")
    if data.ndim not in (3, 4):
        raise file.shape_error(data, "square patterns [n, N, N]")
    stack: Stack = data if data.ndim == 3 else RasterStack(data)
    positions, key, reason = _translation(file, entry, detector, data.shape[:-2])
    wavelength = _wavelength(file, instrument)
    conventions = Conventions.of_format("NeXus", unit="m", axes="column,row")
    shape = data.shape[-2:]
    return RawScan(
        path=file.path,
        patterns=stack,
        patterns_key=data.name,
        positions=positions,
        positions_key=key,
        conventions=replace(conventions, unit=Convention("m", reason)),
        mask=file.good_pixels(shape, f"{detector}/pixel_mask", f"{detector}/mask"),
        pixel_size=object_pixel_size(file, detector, wavelength, min(shape)),
        wavelength=wavelength,
        distance=file.distance(f"{detector}/distance"),
        notes=tuple(file.notes),
    )


def _entries(file: HDF5File) -> list[str]:
    """Entries, or their parts of class NXsubentry, that name one of the two definitions."""
    places = [place for name in file.names() for place in (name, *_children(file, name, "NXsubentry"))]
    return [place for place in places if _definition(file, place) in _DEFINITIONS]


def _definition(file: HDF5File, entry: str) -> str:
    definition = file.first(f"{entry}/definition")
    if definition is None or definition.dtype.kind not in "OSU":
        return ""
    # Some writers pad text, or begin it with a byte order mark.
    return next(iter(texts(file.load(definition))), "").strip("\ufeff\0 \t\r\n")


def _children(file: HDF5File, parent: str, kind: str) -> Iterator[str]:
    for name in file.names(parent):
        group = file.get(f"{parent}/{name}")
        if isinstance(group, h5py.Group) and attribute_text(group, "NX_class") == kind:
            yield f"{parent}/{name}"


def _group(file: HDF5File, parent: str, kind: str, default: str) -> str:
    name = next(_children(file, parent, kind), f"{parent}/{default}")
    if not file.has_group(name):
        raise InputError(f"{file.path}: no group {name}, expected one of class {kind}")
    return name


def _area_detector(file: HDF5File, instrument: str) -> str:
    """The detector with the largest frames: others count photons or have one row; more than one is noted."""
    sides: dict[str, int] = {}
    for detector in _children(file, instrument, "NXdetector"):
        data = file.get(f"{detector}/data")
        if isinstance(data, h5py.Dataset) and data.ndim in (3, 4):
            # A single frame is a picture of the sample or of the beam.
            sides[detector] = min(data.shape[-2:]) if math.prod(data.shape[:-2]) > 1 else 0
    if not sides:
        return _group(file, instrument, "NXdetector", "detector_1")
    chosen = max(sides, key=lambda detector: sides[detector])
    if len(sides) > 1:
        names = ", ".join(detector.rpartition("/")[2] for detector in sides)
        file.notes.append(f"detector: {chosen.rpartition('/')[2]} of {names}, by the size of its frames")
    return chosen


def _translation(
    file: HDF5File, entry: str, detector: str, scanned: tuple[int, ...]
) -> tuple[NDArray[np.float64], str, str]:
    """(x, y) of the sample in metres [n, 2], their key, and how their unit is known.

    `scanned`: (n,), or (slow, fast) of a raster.
    """
    n = math.prod(scanned)
    samples = [*_children(file, entry, "NXsample"), f"{entry}/sample_1"]
    places = [f"{entry}/data_1", *(f"{sample}/geometry_1" for sample in samples), detector, *samples]
    names = [f"{place}/translation" for place in places]
    dataset = file.first(*names)
    # The translation of a detector that stands still is no position of the sample.
    still = dataset is not None and dataset.size <= 3 < 2 * n
    found = [(name, file.get(name)) for name in names] if still else []
    shapes = {name: item.shape for name, item in found if isinstance(item, h5py.Dataset)}
    moving = [name for name, shape in shapes.items() if shape[:-1] in ((n,), scanned)]
    transformed = any(file.has_group(f"{sample}/transformations") for sample in samples)
    dataset = file.first(*moving) if moving else None if still and transformed else dataset
    if dataset is not None:
        positions = file.translations(dataset, scanned)
        unit = ", ".join(dict.fromkeys(attribute_texts(dataset, "units")))
        reason = f"from the units {unit} of the file" if unit else "NeXus convention, no units in the file"
        return positions, dataset.name, reason
    for sample in samples:
        if file.has_group(f"{sample}/transformations"):
            place = f"{sample}/transformations"
            return sample_positions(file, place, scanned), place, "by the units of its axes"
    raise InputError(
        f"{file.path}: no dataset {detector}/translation or group {samples[0]}/transformations, expected the "
        "positions of the sample"
    )


def _wavelength(file: HDF5File, instrument: str) -> float | None:
    beams = [*_children(file, instrument, "NXbeam"), f"{instrument}/beam_1"]
    return file.wavelength(
        tuple(f"{beam}/{name}" for beam in beams for name in ("incident_wavelength", "wavelength")),
        tuple(
            f"{beam}/{name}"
            for beam in beams
            for name in ("incident_beam_energy", "incident_energy", "energy")
        ),
    )


def sample_positions(file: HDF5File, place: str, scanned: tuple[int, ...]) -> NDArray[np.float64]:
    """(x, y) of the sample in metres, [n, 2].

    Raises InputError if no axis has n values, an axis is malformed, or a stage is rotated and the order of the axes is
    unknown.

    * `place`: group of the axes. Each has a `vector`, a `transformation_type`, and `depends_on`, its carrier.
    * `scanned`: (n,), or (slow, fast) of a raster.
    """
    n = math.prod(scanned)
    axes = [axis for name in file.names(place) if (axis := file.first(f"{place}/{name}")) is not None]
    axes = [axis for axis in axes if "vector" in axis.attrs]
    known = {axis.name.rpartition("/")[2] for axis in axes}
    for axis in axes:
        carrier = attribute_text(axis, "depends_on") or "."
        if carrier.rpartition("/")[2] not in {*known, "."}:
            raise InputError(
                f"{file.path}: {axis.name} depends_on {carrier!r}, expected an axis in {place} with a vector, or '.'"
            )
    start = file.first(f"{place.rpartition('/')[0]}/depends_on")
    named = [] if start is None else texts(file.load(start))
    chained, ordered = _chain(axes, next(iter(named), "").strip().rpartition("/")[2])
    if not ordered:
        _refuse_parallel(file, axes, n)
    position, moving = np.zeros((n, 3)), 0
    for axis in chained:
        rotation = attribute_text(axis, "transformation_type").strip().lower() == "rotation"
        check_raster(axis.shape, scanned, f"{file.path}: {axis.name}")
        values = _values(file, axis, n, rotation=rotation)
        vector = np.asarray(axis.attrs["vector"], dtype=np.float64)
        # Files that are not normalised would turn by another angle.
        vector = vector / np.linalg.norm(vector)
        moving += values.size == n and not rotation
        if not rotation:
            position = position + values[:, None] * vector
        elif values.any():
            if np.ptp(values) > _SAME_ANGLE:
                raise InputError(
                    f"{file.path}: {axis.name} turns the sample by {np.rad2deg(np.ptp(values)):.3g} degrees between "
                    "patterns, expected one angle for a scan"
                )
            if not ordered:
                raise InputError(
                    f"{file.path}: {axis.name} rotates the sample by {np.rad2deg(values.flat[0]):g} degrees, expected "
                    "depends_on at every axis, which states the order of the stages"
                )
            position = Rotation.from_rotvec(values[:, None] * vector).apply(position)
    if not moving:
        raise InputError(
            f"{file.path}: no axis in {place} has {n} values and a vector, expected x and y of the sample"
        )
    return position[:, :2]


def _refuse_parallel(file: HDF5File, axes: list[h5py.Dataset], n: int) -> None:
    """Refuse two axes that move along one line, which may be one motor twice, where no order says that both count."""
    moving = [
        axis
        for axis in axes
        if axis.size == n > 1 and np.shape(axis.attrs["vector"]) == (3,) and np.ptp(file.load(axis)) > 0
    ]
    for index, axis in enumerate(moving):
        for other in moving[:index]:
            along, across = (np.asarray(one.attrs["vector"], dtype=np.float64) for one in (axis, other))
            kinds = {attribute_text(one, "transformation_type").strip().lower() for one in (axis, other)}
            length = np.linalg.norm(along) * np.linalg.norm(across)
            if "rotation" not in kinds and abs(along @ across) > _PARALLEL * length > 0:
                raise InputError(
                    f"{file.path}: {other.name} and {axis.name} move the sample along the same line, expected "
                    "depends_on of the sample and of every axis, which states which of them carries it"
                )


def _chain(axes: list[h5py.Dataset], start: str) -> tuple[list[h5py.Dataset], bool]:
    """The axes from the sample to the base, and whether `depends_on` states this order.

    `start`: the axis that the sample depends on; others than those that carry it do not count.
    """
    by_name = {axis.name.rpartition("/")[2]: axis for axis in axes}
    carriers = {
        name: attribute_text(axis, "depends_on", "?").rpartition("/")[2] for name, axis in by_name.items()
    }
    first = [start] if start in by_name else [name for name in by_name if name not in carriers.values()]
    chain: list[str] = []
    name = first[0] if len(first) == 1 else ""
    while name in by_name and name not in chain:
        chain.append(name)
        name = carriers[name]
    if (start in by_name or len(chain) == len(axes)) and name == ".":
        return [by_name[name] for name in chain], True
    return axes, False


def _values(file: HDF5File, axis: h5py.Dataset, n: int, *, rotation: bool) -> NDArray[np.float64]:
    """Values in metres or radians, [n] or [1]."""
    vector = np.asarray(axis.attrs["vector"])
    shaped = (
        vector.shape == (3,) and vector.dtype.kind in "fiu" and np.isfinite(vector).all() and vector.any()
    )
    if axis.size not in (1, n) or not shaped or axis.dtype.kind not in "fiu":
        raise InputError(
            f"{file.path}: {axis.name} has shape {axis.shape} and vector {vector.tolist()}, expected {n} values "
            "and (x, y, z)"
        )
    if not rotation:
        return file.lengths(axis).reshape(-1)
    unit = attribute_text(axis, "units").strip() or "deg"
    factor = unit_factor(unit, ANGLE_UNITS, f"{file.path}: {axis.name}")
    return file.load(axis).astype(np.float64).reshape(-1) * factor
