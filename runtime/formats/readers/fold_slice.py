"""Pairs of HDF5 files: `<name>_dp.hdf5` with patterns and `<name>_para.hdf5` with everything else.

fold_slice writes them, and tools around PtychoNN, PtychoViT and PtychoFM (ptychodus exports them). Either file may be
named; the other one is in the same folder, or the companion.

_dp
    `dp` [n, rows, columns] photon counts, DC at the centre.
_para, of networks
    `probe_position_x_m`, `probe_position_y_m` [n] in **metres**, x = column, y = row, from the centre of the object;
    `object` complex [1, rows, columns] with attributes `pixel_height_m` (`pixel_width_m`, `center_x_m`, `center_y_m`);
    `probe` complex [1, modes, N, N]. As in ptychodus, a position is the geometric middle of a window. The export of a
    shifted object loses its centre: then positions leave the object, and it is not used as a reference.
_para, of fold_slice
    `ppX`, `ppY` [n] in **metres**, X = -column, Y = -row, as in fold_slice's own reader; `dx` (object pixel size,
    m) and `lambda` (m), if known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.formats.containers.hdf5 import HDF5File
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan, raster_positions
from ptychonnx.runtime.formats.read_options import Conventions
from ptychonnx.runtime.formats.readers.probe import hdf5_probe
from ptychonnx.runtime.formats.readers.ptychodus import (
    combined_layers,
    object_corner,
    object_number,
)

__all__ = ["matches", "read"]

_DP, _PARA = "_dp", "_para"
_FOLD_SLICE, _NETWORKS = ("ppX", "ppY"), ("probe_position_x_m", "probe_position_y_m")
_CONVENTIONS = {
    _FOLD_SLICE: Conventions.of_format("fold_slice", unit="m", axes="column,row", sign="flip-both"),
    _NETWORKS: Conventions.of_format("PtychoFM", unit="m", axes="column,row"),
}


def matches(file: HDF5File) -> bool:
    """True if the file is one of the two."""
    return file.has("dp") or any(set(names) <= set(file.root) for names in (_FOLD_SLICE, _NETWORKS))


def read(file: HDF5File) -> RawScan:
    """Read the pair.

    Raises InputError if the other file or a dataset is missing, or shapes disagree.
    """
    if file.has("dp") and file.options.raster is not None:
        return _raster(file)
    if file.has("dp"):
        patterns = file
        parameters = file.companion(_renamed(file, _DP, _PARA), "positions of these patterns")
    else:
        patterns = file.companion(_renamed(file, _PARA, _DP), "patterns at these positions")
        parameters = file
    data = patterns.dataset("photon counts [n, rows, columns]", "dp")
    names = _FOLD_SLICE if parameters.has("ppX") else _NETWORKS
    x, y = parameters.vectors("float [n] in metres", *names)
    known_object, pixel_size, corner = _object(parameters)
    return RawScan(
        path=file.path,
        patterns=data,
        patterns_key=data.name,
        positions=np.stack([x - corner[1], y - corner[0]], axis=1),
        positions_key=f"{names[0]} and {names[1]}",
        conventions=_CONVENTIONS[names],
        offset="middle",
        probe=hdf5_probe(parameters, "probe"),
        known_object=known_object,
        pixel_size=pixel_size or parameters.length("dx"),
        wavelength=parameters.length("lambda"),
    )


def _raster(file: HDF5File) -> RawScan:
    """Patterns alone, at positions that the options describe."""
    data = file.dataset("photon counts [n, rows, columns]", "dp")
    return RawScan(
        path=file.path,
        patterns=data,
        patterns_key=data.name,
        positions=raster_positions(file.options, len(data), str(file.path)),
        positions_key="--raster",
        conventions=Conventions.of_format("raster", unit="m", axes="row,column"),
    )


def _renamed(file: HDF5File, ending: str, other: str) -> str:
    # pty-chi also writes dp.hdf5 and para.hdf5.
    if file.path.stem == ending.strip("_"):
        return f"{other.strip('_')}{file.path.suffix}"
    return f"{file.path.stem.removesuffix(ending)}{other}{file.path.suffix}"


def _object(file: HDF5File) -> tuple[NDArray[np.complex64] | None, float | None, tuple[float, float]]:
    """The object, its pixel size, and the position (row, column) of its pixel [0, 0] in metres, as far as known."""
    attributes = known.attrs if (known := file.first("object")) is not None else {}
    name = "pixel_height_m" if "pixel_height_m" in attributes else "pixel_width_m"
    if name not in attributes:
        return None, None, (0.0, 0.0)
    pixel_size = object_number(file, name, positive=True)
    whole = combined_layers(file)
    centre = (object_number(file, "center_y_m", default=0.0), object_number(file, "center_x_m", default=0.0))
    return whole, pixel_size, object_corner(centre, whole.shape, pixel_size)
