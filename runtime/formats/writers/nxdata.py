"""NeXus plots of an object: `amplitude` and `phase` as NXdata groups, which silx and h5web show on opening."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["ObjectPlots"]


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

        Parameters
        ----------
        entry
            Group directly under the root.
        shape, origin
            Of the object; `origin` is the position (row, column) of its pixel [0, 0], in pixels.
        pixel_size
            In metres, or None.
        title
            Name of the scan.
        """
        entry.parent.attrs["NX_class"] = "NXroot"
        entry.parent.attrs["default"] = entry.name.removeprefix("/")
        entry.attrs["NX_class"] = "NXentry"
        entry.attrs["default"] = "phase"
        scale, unit = (1.0, "pixel") if pixel_size is None else (1e6 * pixel_size, "um")
        self._images = {}
        for name, image_unit in (("amplitude", ""), ("phase", "rad")):
            group = entry.create_group(name)
            group.attrs.update({"NX_class": "NXdata", "signal": name, "axes": ["y", "x"]})
            group["title"] = f"{name.capitalize()} of {title}"
            for axis, first, length in zip("yx", origin, shape, strict=True):
                group[axis] = (first + np.arange(length)) * scale
                group[axis].attrs["units"] = unit
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
