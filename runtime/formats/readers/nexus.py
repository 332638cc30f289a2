"""Scans in NeXus files of the application definitions NXptycho and NXcxi_ptycho.

Recognised by `definition` in a group of class NXentry (`entry_1` by the definition, often `entry`). Groups are found by
their NX_class, so that their names do not matter: `instrument_1`, `detector_1`, `beam_1`, `sample_1`.

Read
----
detector `data`
    [n, rows, columns] photon counts, or [slow, fast, rows, columns] for a raster. DC at the centre.
detector `pixel_mask` or `mask`
    optional bit field [rows, columns], 0 = good.
detector `x_pixel_size`, `y_pixel_size`, `distance`
    With a `units` attribute; metres without.
detector or sample `translation` (also in `geometry_1`, `data_1`)
    [n, 3] or [n, 2], (x, y[, z]) of the **sample** in metres or the `units` given. z is ignored.
sample `transformations/*`
    else: the axes of type translation, each [n], [slow, fast], or one number, with `vector` (x, y, z) and `units`;
    their sum is the translation of the sample. Axes of type rotation are left out, which is right at angle 0.
beam `incident_wavelength` or `wavelength`, else `incident_beam_energy`, `incident_energy` or `energy`
    With `units` (m, nm, angstrom; eV, keV, J); metres or joules without.

Frame and sign
--------------
NeXus has z along the beam, y up and x to the left for who looks along the beam, as CXI. Rows of the detector run
down and columns to the right. When the sample moves up, the beam meets a lower part: row = +y / pixel, column = +x /
pixel. A stage that is wired the other way needs `positions_sign`.
"""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import PLANCK_TIMES_LIGHT, Source
from ptychonnx.runtime.formats.containers.stacks import Flattened, Stack
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.read_options import Conventions, Stated

__all__ = ["matches", "read"]

_DEFINITIONS = {"NXptycho", "NXcxi_ptycho"}


def matches(file: h5py.File) -> bool:
    """True if an entry says that it is one of the two definitions."""
    return _entry(file) is not None


def read(source: Source) -> RawScan:
    """Read the first such entry.

    Raises
    ------
    InputError
        If something that is needed is missing, or shapes disagree.
    """
    entry = _entry(source.file)
    assert entry is not None
    instrument = _group(source, entry, "NXinstrument", "instrument_1")
    detector = _group(source, instrument, "NXdetector", "detector_1")
    data = source.dataset("photon counts [n, rows, columns]", f"{detector}/data")
    if data.ndim not in (3, 4):
        raise InputError(
            f"{source.path}: {data.name} has shape {data.shape}, expected square patterns [n, N, N]"
        )
    stack: Stack = data if data.ndim == 3 else Flattened(data)
    positions, key, why = _translation(source, entry, detector, stack.shape[0])
    wavelength = _wavelength(source, entry, instrument)
    base = Conventions.of_format("NeXus", unit="m", axes="column,row")
    return RawScan(
        path=source.path,
        patterns=stack,
        patterns_key=data.name,
        positions=positions,
        positions_key=key,
        conventions=Conventions(Stated("m", why), base.axes, base.sign, base.quantity, base.dc),
        mask=_mask(source, detector, data.shape[-2:]),
        pixel_size=_pixel(source, detector, wavelength, min(data.shape[-2:])),
        wavelength=wavelength,
    )


def _entry(file: h5py.File) -> str | None:
    for name, group in file.items():
        if isinstance(group, h5py.Group) and isinstance(group.get("definition"), h5py.Dataset):
            text = np.asarray(group["definition"][()]).reshape(-1)[:1].tolist()
            if text and (text[0].decode() if isinstance(text[0], bytes) else str(text[0])) in _DEFINITIONS:
                return name
    return None


def _children(source: Source, parent: str, kind: str) -> Iterator[str]:
    for name, group in source.file[parent].items():
        found = group.attrs.get("NX_class", "") if isinstance(group, h5py.Group) else ""
        if (found.decode() if isinstance(found, bytes) else found) == kind:
            yield f"{parent}/{name}"


def _group(source: Source, parent: str, kind: str, name: str) -> str:
    found = next(_children(source, parent, kind), f"{parent}/{name}")
    if not isinstance(source.file.get(found), h5py.Group):
        raise InputError(f"{source.path}: no group {found}, expected one of class {kind}")
    return found


def _translation(source: Source, entry: str, detector: str, n: int) -> tuple[NDArray[np.float64], str, str]:
    """(x, y) of the sample in metres [n, 2], where they are, and in which unit they were."""
    samples = [*_children(source, entry, "NXsample"), f"{entry}/sample_1"]
    places = [f"{entry}/data_1", *(f"{sample}/geometry_1" for sample in samples), detector, *samples]
    found = source.first(*(f"{place}/translation" for place in places))
    if found is not None:
        if found.ndim != 2 or len(found) != n or found.shape[1] not in (2, 3):
            raise InputError(
                f"{source.path}: {found.name} has shape {found.shape}, expected {(n, 3)} or {(n, 2)}, one (x, y, z) "
                "for each pattern"
            )
        return source.lengths(found)[:, :2], found.name, _unit_reason(found)
    for sample in samples:
        place = f"{sample}/transformations"
        if isinstance(source.file.get(place), h5py.Group):
            return _moved(source, place, n), place, "by the units of its axes"
    raise InputError(
        f"{source.path}: no dataset {detector}/translation or group {samples[0]}/transformations, expected the "
        "positions of the sample"
    )


def _moved(source: Source, place: str, n: int) -> NDArray[np.float64]:
    total, axes = np.zeros((n, 3)), 0
    for name in source.file[place]:
        axis = source.first(f"{place}/{name}")
        if (
            axis is None
            or "vector" not in axis.attrs
            or _text(axis, "transformation_type", "translation") == "rotation"
        ):
            continue
        values = source.lengths(axis).reshape(-1)
        vector = np.asarray(axis.attrs["vector"], dtype=np.float64)
        if values.size not in (1, n) or vector.shape != (3,) or not np.isfinite(vector).all():
            raise InputError(
                f"{source.path}: {axis.name} has shape {axis.shape} and vector {vector.tolist()}, expected {n} values "
                "and (x, y, z)"
            )
        total += values[:, None] * vector
        axes += values.size == n
    if axes == 0:
        raise InputError(
            f"{source.path}: no axis in {place} has {n} values and a vector, expected x and y of the sample"
        )
    return total[:, :2]


def _unit_reason(dataset: h5py.Dataset) -> str:
    unit = _text(dataset, "units", "")
    return f"from the units {unit} of the file" if unit else "as NeXus has it, no units in the file"


def _text(dataset: h5py.Dataset, name: str, default: str) -> str:
    value = dataset.attrs.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def _wavelength(source: Source, entry: str, instrument: str) -> float | None:
    beams = [*_children(source, instrument, "NXbeam"), f"{instrument}/beam_1"]
    length = source.length(*(f"{b}/{n}" for b in beams for n in ("incident_wavelength", "wavelength")))
    if length is not None:
        return length
    names = ("incident_beam_energy", "incident_energy", "energy")
    energy = source.energy(*(f"{beam}/{name}" for beam in beams for name in names))
    return None if energy is None else PLANCK_TIMES_LIGHT / energy


def _pixel(source: Source, detector: str, wavelength: float | None, size: int) -> float | None:
    distance = source.length(f"{detector}/distance")
    across = source.length(f"{detector}/x_pixel_size", f"{detector}/y_pixel_size")
    down = source.length(f"{detector}/y_pixel_size", f"{detector}/x_pixel_size")
    if wavelength is None or distance is None or across is None or down is None:
        return None
    if not np.isclose(across, down, rtol=1e-3):
        raise InputError(f"{source.path}: detector pixels are {across:g} x {down:g} m, expected square ones")
    return wavelength * distance / (size * across)


def _mask(source: Source, detector: str, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    found = source.first(f"{detector}/pixel_mask", f"{detector}/mask")
    if found is None:
        return None
    if found.shape != shape or found.dtype.kind not in "iub":
        raise InputError(
            f"{source.path}: {found.name} is {found.dtype} of shape {found.shape}, expected integers of shape {shape}, "
            "0 = good"
        )
    return found[()] == 0
