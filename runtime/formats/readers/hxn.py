"""Pairs of HDF5 files, `<name>_dp.hdf5` with patterns and `<name>_para.hdf5` with everything else.

Written by fold_slice and by tools around PtychoNN, PtychoViT and PtychoFM (ptychodus exports them). Either file may be
named; the other one is beside it, or given as the companion.

_dp
    `dp` [n, rows, columns] photon counts, DC at the centre.
_para, of networks
    `probe_position_x_m`, `probe_position_y_m` [n] in **metres**, x = column, y = row, from the centre of the object;
    `object` complex [1, rows, columns] with attributes `pixel_height_m` (`pixel_width_m`, `center_x_m`, `center_y_m`);
    `probe` complex [1, modes, N, N]. As in ptychodus a position means the geometric middle of a window. An export of a
    shifted object loses its centre: then positions leave the object, and it is left out as a reference.
_para, of fold_slice
    `ppX`, `ppY` [n] in **metres**, X = column, Y = row; `dx` the object's pixel (m) and `lambda` (m), if measured.
"""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import Source
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.read_options import Conventions
from ptychonnx.runtime.formats.readers.ptychodus import first_probe, flat_object, number_of

__all__ = ["matches", "read"]

_DP, _PARA = "_dp", "_para"


def matches(file: h5py.File) -> bool:
    """True if the file is one of the two."""
    return _is_patterns(file) or _is_parameters(file)


def read(source: Source) -> RawScan:
    """Read the pair.

    Raises
    ------
    InputError
        If the other file or a dataset is missing, or shapes disagree.
    """
    if _is_patterns(source.file):
        patterns, parameters = (
            source,
            source.beside(_renamed(source, _DP, _PARA), "positions of these patterns"),
        )
    else:
        patterns, parameters = (
            source.beside(_renamed(source, _PARA, _DP), "patterns at these positions"),
            source,
        )
    data = patterns.dataset("photon counts [n, rows, columns]", "dp")
    expected = "float [n] in metres"
    names = ("ppX", "ppY") if parameters.has("ppX") else ("probe_position_x_m", "probe_position_y_m")
    x, y = (parameters.real(expected, name).astype(np.float64).reshape(-1) for name in names)
    if x.shape != y.shape:
        raise InputError(
            f"{parameters.path}: {names[0]} has shape {x.shape} and {names[1]} {y.shape}, expected [n] both"
        )
    known, pixel, corner = _object(parameters)
    return RawScan(
        path=source.path,
        patterns=data,
        patterns_key=data.name,
        positions=np.stack([x - corner[1], y - corner[0]], axis=1),
        positions_key=f"{names[0]} and {names[1]}",
        conventions=Conventions.of_format(
            "fold_slice" if names[0] == "ppX" else "PtychoFM", unit="m", axes="column,row"
        ),
        offset="middle",
        probe=first_probe(parameters) if parameters.has("probe") else None,
        known_object=known,
        pixel_size=pixel or parameters.length("dx"),
        wavelength=parameters.length("lambda"),
    )


def _is_patterns(file: h5py.File) -> bool:
    return isinstance(file.get("dp"), h5py.Dataset)


def _is_parameters(file: h5py.File) -> bool:
    return {"ppX", "ppY"} <= set(file) or {"probe_position_x_m", "probe_position_y_m"} <= set(file)


def _renamed(source: Source, ending: str, other: str) -> str:
    stem = source.path.stem
    if not stem.endswith(ending):
        return f"{stem}{other}{source.path.suffix}"
    return f"{stem.removesuffix(ending)}{other}{source.path.suffix}"


def _object(source: Source) -> tuple[NDArray[np.complex64] | None, float | None, tuple[float, float]]:
    """The object, its pixel (m), and the place (row, column) of its pixel [0, 0] in metres, as far as known."""
    if not source.has("object"):
        return None, None, (0.0, 0.0)
    attributes = source.file["object"].attrs
    name = "pixel_height_m" if "pixel_height_m" in attributes else "pixel_width_m"
    if name not in attributes:
        return None, None, (0.0, 0.0)
    pixel = number_of(source, attributes, name, positive=True)
    known = flat_object(source)
    centre = [number_of(source, attributes, f"center_{axis}_m", default=0.0) for axis in "yx"]
    corner = [middle - (length - 1) / 2 * pixel for middle, length in zip(centre, known.shape, strict=True)]
    return known, pixel, (corner[0], corner[1])
