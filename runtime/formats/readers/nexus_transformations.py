"""NXtransformations: the position of a sample on a chain of translation and rotation stages."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File, attribute_text

__all__ = ["sample_positions"]


def sample_positions(file: HDF5File, place: str, n: int) -> NDArray[np.float64]:
    """(x, y) of the sample in metres, [n, 2].

    Parameters
    ----------
    place
        Group of the axes. Each has a `vector`, a `transformation_type`, and `depends_on`, the axis that carries it.

    Raises
    ------
    InputError
        If no axis has n values, an axis is malformed, or a stage is rotated and the order of the axes is unknown.
    """
    axes = [axis for name in file.names(place) if (axis := file.first(f"{place}/{name}")) is not None]
    axes = [axis for axis in axes if "vector" in axis.attrs]
    chained, ordered = _chain(axes)
    position, moving = np.zeros((n, 3)), 0
    for axis in chained:
        rotation = attribute_text(axis, "transformation_type") == "rotation"
        values = _values(file, axis, n, rotation=rotation)
        vector = np.asarray(axis.attrs["vector"], dtype=np.float64)
        moving += values.size == n and not rotation
        if not rotation:
            position = position + values[:, None] * vector
        elif values.any():
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


def _chain(axes: list[h5py.Dataset]) -> tuple[list[h5py.Dataset], bool]:
    """The axes from the sample to the base, and whether `depends_on` states this order."""
    by_name = {axis.name.rpartition("/")[2]: axis for axis in axes}
    carriers = {
        name: attribute_text(axis, "depends_on", "?").rpartition("/")[2] for name, axis in by_name.items()
    }
    first = [name for name in by_name if name not in carriers.values()]
    chain: list[str] = []
    name = first[0] if len(first) == 1 else ""
    while name in by_name and name not in chain:
        chain.append(name)
        name = carriers[name]
    if len(chain) == len(axes) and name == ".":
        return [by_name[name] for name in chain], True
    return axes, False


def _values(file: HDF5File, axis: h5py.Dataset, n: int, *, rotation: bool) -> NDArray[np.float64]:
    """Values in metres or radians, [n] or [1]."""
    vector = np.asarray(axis.attrs["vector"])
    shaped = vector.shape == (3,) and vector.dtype.kind in "fiu" and np.isfinite(vector).all()
    if axis.size not in (1, n) or not shaped or axis.dtype.kind not in "fiu":
        raise InputError(
            f"{file.path}: {axis.name} has shape {axis.shape} and vector {vector.tolist()}, expected {n} values "
            "and (x, y, z)"
        )
    if not rotation:
        return file.lengths(axis).reshape(-1)
    angles = file.load(axis).astype(np.float64).reshape(-1)
    return angles if attribute_text(axis, "units").startswith("rad") else np.deg2rad(angles)
