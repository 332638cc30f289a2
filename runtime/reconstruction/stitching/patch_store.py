"""Storage for patches that are needed again after the last one has arrived, in memory or on disk."""

from __future__ import annotations

import tempfile

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching.temporary_files import disk_errors

__all__ = ["CONTENT", "MEMORY_BYTES", "PatchStore"]

# Limit for patches in memory: 2,048 of 64 x 64 pixels.
MEMORY_BYTES = 2**26
# Description in error messages.
CONTENT = "the patches that are synchronised"


class PatchStore:
    """Patches in order of arrival, with their places on the canvas.

    Beyond `MEMORY_BYTES` they are written to a temporary file, which has no name and disappears with this object.
    Places stay in memory, 40 bytes per patch.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Create an empty store for patches of shape (h, w)."""
        self._shape = shape
        self._patch_bytes = 8 * shape[0] * shape[1]
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - lives as long as this
            MEMORY_BYTES, prefix="ptychonnx-patches-"
        )
        self._corners: list[NDArray[np.intp]] = []
        self._fractions: list[NDArray[np.float64]] = []
        self._middles: list[NDArray[np.complex64]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def disk_bytes(self, count: int) -> int:
        """Disk space for `count` patches in bytes; 0 if they stay in memory."""
        needed = count * self._patch_bytes
        return needed if needed > MEMORY_BYTES else 0

    def append(
        self, patches: NDArray[np.complex64], corners: NDArray[np.intp], fractions: NDArray[np.float64]
    ) -> None:
        """Store patches [m, h, w] with their corners and fractions [m, 2], see `PlacedPatches`.

        Raises EnvironmentFailure if the disk is full.
        """
        with disk_errors(CONTENT):
            self._file.seek(self._count * self._patch_bytes)
            self._file.write(np.ascontiguousarray(patches).data)
        self._corners.append(corners)
        self._fractions.append(fractions)
        self._middles.append(patches[:, self._shape[0] // 2, self._shape[1] // 2].copy())
        self._count += len(patches)

    def places(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Corners int [n, 2] and fractions float64 [n, 2] of all patches."""
        empty = np.empty((0, 2))
        corners = np.concatenate([empty.astype(np.intp), *self._corners])
        return corners, np.concatenate([empty, *self._fractions])

    def order(self) -> NDArray[np.intp]:
        """Indices [n] that sort the patches by place, then by central value, whatever their order of arrival."""
        corners, fractions = self.places()
        middle = np.concatenate([np.empty(0, dtype=np.complex64), *self._middles])
        rows, columns = (corners + fractions).T
        return np.lexsort((middle.imag, middle.real, columns, rows))

    def read(self, index: NDArray[np.intp]) -> NDArray[np.complex64]:
        """Read patches [m, h, w] by their indices [m]; ascending indices are fastest.

        Raises EnvironmentFailure if the file cannot be read.
        """
        patches = np.empty((len(index), *self._shape), dtype=np.complex64)
        with disk_errors(CONTENT):
            for patch, row in zip(patches, index.tolist(), strict=True):
                self._file.seek(row * self._patch_bytes)
                self._file.readinto(patch.data)
        return patches
