"""NeXus plots of an object, of its misfit and its uncertainty: NXdata groups, which silx and h5web show on opening."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.misfit import Misfit
from ptychonnx.runtime.reconstruction.uncertainty import Uncertainty

__all__ = ["ObjectPlots", "write_misfit", "write_uncertainty"]


class ObjectPlots:
    """NXdata groups `amplitude` and `phase` in an NXentry; the phase is the default plot of the file.

    Both have the axes `y` (rows, downwards) and `x` (columns) in the coordinates of the scan: in micrometres if the
    pixel size is known, else in pixels. Pixels that no patch reached are NaN.
    """

    def __init__(
        self,
        entry: h5py.Group,
        shape: tuple[int, int],
        origin: tuple[float, float],
        pixel_size: float | None,
        title: str,
        chunks: tuple[int, ...],
    ) -> None:
        """Create the groups, and the attributes `default` from the root down to the phase.

        * `entry`: group directly under the root.
        * `shape`, `origin`: of the object; `origin` is the position (row, column) of its pixel [0, 0], in pixels.
        * `pixel_size`: in metres, or None.
        * `title`: name of the scan.
        """
        entry.parent.attrs["NX_class"] = "NXroot"
        entry.parent.attrs["default"] = entry.name.removeprefix("/")
        entry.attrs["NX_class"] = "NXentry"
        entry.attrs["default"] = "phase"
        self._images = {}
        for name, image_unit in (("amplitude", ""), ("phase", "rad")):
            group = entry.create_group(name)
            _describe_image(group, name, f"{name.capitalize()} of {title}", origin, shape, pixel_size)
            image = group.create_dataset(
                name, shape, np.float32, chunks=chunks, compression="gzip", fillvalue=np.nan
            )
            image.attrs.update({"interpretation": "image", "units": image_unit, "long_name": name})
            self._images[name] = image

    def write(self, rows: slice, columns: slice, block: NDArray, weight: NDArray) -> None:
        """Write a block of the object; pixels of weight 0 become NaN."""
        covered = weight > 0
        for name, part in (("amplitude", np.abs), ("phase", np.angle)):
            self._images[name][rows, columns] = np.where(covered, part(block), np.nan)


def write_misfit(entry: h5py.Group, misfit: Misfit, pixel_size: float | None, title: str) -> None:
    """NXdata group `misfit`: the misfit of each compared pattern at its position, as a scatter plot.

    It also holds `pattern`, the indices of the patterns, and as attributes `total`, `scattered`, `verdict`, the
    counting `noise` of the object and its `contrast`, and, for an object that was fitted to the patterns, `held_out`
    and `held_out_scattered`.
    """
    scale, unit = _unit(pixel_size)
    group = entry.create_group("misfit")
    group.attrs.update({"NX_class": "NXdata", "signal": "misfit", "axes": ["x", "y"]})
    group.attrs.update({"total": misfit.value, "scattered": misfit.scattered, "verdict": misfit.verdict})
    if misfit.noise is not None:
        group.attrs.update({"noise": misfit.noise.level, "contrast": misfit.noise.contrast})
    if misfit.held_out is not None:
        held_out = misfit.held_out.misfit
        group.attrs.update({"held_out": held_out.value, "held_out_scattered": held_out.scattered})
    group["title"] = f"Forward misfit of each pattern of {title}"
    group["misfit"], group["pattern"] = misfit.per_pattern, misfit.patterns
    for axis, values in zip("yx", misfit.positions.T, strict=True):
        group[axis] = values * scale
        group[axis].attrs["units"] = unit


def write_uncertainty(
    entry: h5py.Group,
    uncertainty: Uncertainty,
    origin: tuple[float, float],
    pixel_size: float | None,
    title: str,
) -> None:
    """NXdata groups `amplitude` and `phase` in a group `uncertainty`: half-widths of intervals about the object.

    The signal of each is the standard deviation (68 %); `half_width_95` is the half-width for 95 %. Both are NaN where
    there is too little light.
    """
    outer = entry.create_group("uncertainty")
    outer.attrs.update(
        {"NX_class": "NXcollection", "members": uncertainty.members, "calibrated": uncertainty.calibrated}
    )
    for name, deviation, wide, unit in (
        ("amplitude", uncertainty.amplitude, uncertainty.amplitude_95, ""),
        ("phase", uncertainty.phase, uncertainty.phase_95, "rad"),
    ):
        group = outer.create_group(name)
        _describe_image(
            group, name, f"Standard deviation of the {name} of {title}", origin, deviation.shape, pixel_size
        )
        for dataset, values in ((name, deviation), ("half_width_95", wide)):
            image = group.create_dataset(dataset, data=values, compression="gzip")
            image.attrs.update({"interpretation": "image", "units": unit})


def _describe_image(
    group: h5py.Group,
    signal: str,
    title: str,
    origin: tuple[float, float],
    shape: tuple[int, ...],
    pixel_size: float | None,
) -> None:
    """Make a group an NXdata of an image, with axes in the coordinates of the scan."""
    scale, unit = _unit(pixel_size)
    group.attrs.update({"NX_class": "NXdata", "signal": signal, "axes": ["y", "x"]})
    group["title"] = title
    for axis, first, length in zip("yx", origin, shape, strict=True):
        group[axis] = (first + np.arange(length)) * scale
        group[axis].attrs["units"] = unit


def _unit(pixel_size: float | None) -> tuple[float, str]:
    """Length of a pixel in the unit of the axes, and the unit."""
    return (1.0, "pixel") if pixel_size is None else (1e6 * pixel_size, "um")
