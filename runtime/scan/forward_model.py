"""The forward model of ptychography in NumPy; `ptychonnx.train` has the same one in TensorFlow and Torch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychonnx.runtime.errors import InputError

__all__ = [
    "cut_windows",
    "forward",
    "illumination",
    "middle_to_centre",
    "overlapping_parts",
    "window_corners",
]


def forward(patches: NDArray[np.complexfloating], probe: NDArray[np.complexfloating]) -> NDArray[np.floating]:
    """Far-field amplitudes of object patches illuminated by a probe of incoherent modes.

    ``A = sqrt(sum_modes |fftshift(fft2(P * O, norm="ortho"))|^2)``: the Fraunhofer pattern of the exit wave,
    intensities of the modes added. The transform is unitary, so photons are conserved.

    * `patches`: complex [..., N, N], transmission of the object in each window.
    * `probe`: complex [modes, N, N].

    Returns real [..., N, N], amplitude with DC at [N // 2, N // 2], in sqrt(photons) if the probe is scaled to photons.
    """
    exit_waves = patches[..., None, :, :] * probe
    far_field = np.fft.fft2(exit_waves, norm="ortho")
    intensity = np.sum(far_field.real**2 + far_field.imag**2, axis=-3)
    return np.sqrt(np.fft.fftshift(intensity, axes=(-2, -1)))


def illumination(probe: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """Photon density sum_modes |P|^2 [N, N] of a probe [modes, N, N]."""
    return np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0)


def window_corners(positions: ArrayLike, size: int) -> NDArray[np.float64]:
    """Top-left corner (row, column) of each window, float64 [n, 2], from the centres of the windows."""
    return np.asarray(positions, dtype=np.float64) - size // 2


def middle_to_centre(size: int) -> float:
    """From the geometric middle (N - 1) / 2 of a window of N = `size` pixels to its centre N // 2."""
    return 0.5 if size % 2 == 0 else 0.0


def overlapping_parts(
    offset: Iterable[int], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of a window that another one at an offset (row, column) overlaps, and of the other one."""
    here, there = (
        tuple(slice(max(0, way * d), n + min(0, way * d)) for d, n in zip(offset, shape, strict=True))
        for way in (1, -1)
    )
    return here, there


def cut_windows(
    image: NDArray, positions: NDArray[np.float64], size: int, origin: tuple[float, float] = (0.0, 0.0)
) -> NDArray:
    """Windows [n, size, size] of an object, at the scan positions rounded to whole pixels.

    Raises InputError if a window leaves the image.

    * `image`: [rows, columns], the object.
    * `positions`: [n, 2] (row, column), centres of the windows, in pixels of the canvas.
    * `origin`: canvas coordinates of the image's pixel [0, 0].
    """
    corners = np.rint(window_corners(positions, size) - np.asarray(origin)).astype(int)
    outside = np.flatnonzero((corners < 0).any(axis=1) | (corners + size > image.shape).any(axis=1))
    if outside.size:
        first = outside[0]
        raise InputError(
            f"position {first} at (row {positions[first][0]:g}, column {positions[first][1]:g}) puts its "
            f"window of {size} pixels outside the object of {image.shape[0]} x {image.shape[1]} pixels"
        )
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size))
    return windows[corners[:, 0], corners[:, 1]]
