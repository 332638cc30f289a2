"""An object of other pixels on the pixels of a scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.readers.reference import OtherPixels, read_reference
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.scan import Reference, Scan

__all__ = ["read_resampled", "resample"]

# Sizes that differ by more are another unit, not another crop of the detector.
_LARGEST_RATIO = 4.0
# Pixels around unknown ones that a cubic spline mixes with them.
_SPLINE_MARGIN = 2


def read_resampled(path: StrPath, scan: Scan, other: OtherPixels) -> tuple[Reference, str]:
    """Read an object of other pixels as `read_reference` does, and resample it.

    Raises InputError if the sizes differ by more than a factor of 4, or as `read_reference`.

    `other`: the refusal of `read_reference`, which has the size of the object's pixels.
    Returns the object on the pixels of the scan, and the method in words.
    """
    assert scan.pixel_size is not None
    ratio = other.pixel_size / scan.pixel_size
    if not 1 / _LARGEST_RATIO <= ratio <= _LARGEST_RATIO:
        raise InputError(f"{other}: objects are resampled by up to a factor of {_LARGEST_RATIO:g}") from other
    # Readers take positions, N and pixel size of the scan, here in pixels of the object.
    size = max(round(scan.size / ratio), 1)
    patterns = np.broadcast_to(np.float32(1), (len(scan), size, size))
    own = Scan(patterns, scan.positions / ratio, name=scan.name, pixel_size=other.pixel_size)
    found, smoothing = read_reference(path, own), _smoothing(ratio)
    filtered = f" after a Gaussian filter of {smoothing:.2g} of its pixels" if smoothing else ""
    text = f"resampled from pixels of {other.pixel_size:.4g} m to {scan.pixel_size:.4g} m by cubic splines{filtered}"
    return resample(found, ratio), text


def resample(found: Reference, ratio: float) -> Reference:
    """Resample an object by cubic splines of real and imaginary part.

    Where pixels become larger, a Gaussian filter comes first, with the standard deviation of ``skimage.transform``:
    half of what the ratio exceeds 1 by, in pixels of the object.

    * `found`: object and origin in its own pixels. Pixels of 0 are unknown.
    * `ratio`: side of its pixels over that of the new ones.

    Returns the object on whole new pixels, 0 where an unknown pixel contributed.
    """
    from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates

    known = found.object != 0
    values = np.where(known, found.object, found.object[known].mean() if known.any() else 1)
    smoothing = _smoothing(ratio)
    last = np.add(found.origin, found.object.shape) - 1
    first = np.ceil(np.multiply(found.origin, ratio) - 1e-9).astype(int)
    ends = np.floor(last * ratio + 1e-9).astype(int) + 1
    axes = [
        np.arange(*span) / ratio - start
        for span, start in zip(zip(first, ends, strict=True), found.origin, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")

    def sampled(part: NDArray) -> NDArray[np.float64]:
        part = gaussian_filter(part.astype(np.float64), smoothing, mode="nearest") if smoothing else part
        return map_coordinates(part.astype(np.float64), grid, order=3, mode="nearest")

    reach = _SPLINE_MARGIN + int(np.ceil(2 * smoothing))
    certain = binary_erosion(known, np.ones((2 * reach + 1,) * 2), border_value=1)
    image = np.where(
        map_coordinates(certain.astype(np.float64), grid, order=1, mode="nearest") > 1 - 1e-6,
        sampled(values.real) + 1j * sampled(values.imag),
        0,
    )
    return replace(found, object=image.astype(np.complex64), origin=(float(first[0]), float(first[1])))


def _smoothing(ratio: float) -> float:
    """Standard deviation of the filter against aliasing, in pixels of the object."""
    return max(0.0, (1 / ratio - 1) / 2)
