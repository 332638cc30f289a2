"""Patches that are needed again after the last of them has come: in memory while they are few, else on disk."""

from __future__ import annotations

import tempfile

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching.temporary_arrays import holding

__all__ = ["KEPT", "KEPT_BYTES", "KeptPatches"]

# Patches that stay in memory: 2,048 of 64 x 64 pixels.
KEPT_BYTES = 2**26
# What errors say of them.
KEPT = "the patches that are synchronised"


class KeptPatches:
    """Patches in the order in which they came, and where each lies on the canvas.

    Beyond `KEPT_BYTES` they are in a temporary file, which has no name and goes with the object. Where they lie stays
    in memory, 40 bytes a patch.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Keep patches [h, w]."""
        self._shape = shape
        self._patch_bytes = 8 * shape[0] * shape[1]
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - lives as long as this
            KEPT_BYTES, prefix="ptychonnx-patches-"
        )
        self._pixels: list[NDArray[np.intp]] = []
        self._fractions: list[NDArray[np.float64]] = []
        self._middles: list[NDArray[np.complex64]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def needed_disk(self, count: int) -> int:
        """Bytes that so many patches take on disk; 0 if they stay in memory."""
        needed = count * self._patch_bytes
        return needed if needed > KEPT_BYTES else 0

    def append(
        self, patches: NDArray[np.complex64], pixels: NDArray[np.intp], fractions: NDArray[np.float64]
    ) -> None:
        """Keep patches [m, h, w], their first pixels [m, 2] on the canvas and the fractions [m, 2] they lie beyond.

        Raises
        ------
        InputError
            If there is no place for them.
        """
        with holding(KEPT):
            self._file.seek(self._count * self._patch_bytes)
            self._file.write(np.ascontiguousarray(patches).data)
        self._pixels.append(pixels)
        self._fractions.append(fractions)
        self._middles.append(patches[:, self._shape[0] // 2, self._shape[1] // 2].copy())
        self._count += len(patches)

    def places(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """First pixels and fractions [n, 2] of all patches."""
        nothing = np.empty((0, 2))
        pixels = np.concatenate([nothing.astype(np.intp), *self._pixels])
        return pixels, np.concatenate([nothing, *self._fractions])

    def order(self) -> NDArray[np.intp]:
        """Numbers of the patches, by where they lie and at one place by a value of theirs; not by how they came."""
        pixels, fractions = self.places()
        middle = np.concatenate([np.empty(0, dtype=np.complex64), *self._middles])
        rows, columns = (pixels + fractions).T
        return np.lexsort((middle.imag, middle.real, columns, rows))

    def read(self, index: NDArray[np.intp]) -> NDArray[np.complex64]:
        """Patches [m, h, w] with these numbers; ascending numbers are read fastest.

        Raises
        ------
        InputError
            If they cannot be read back.
        """
        found = np.empty((len(index), *self._shape), dtype=np.complex64)
        with holding(KEPT):
            for patch, number in zip(found, index.tolist(), strict=True):
                self._file.seek(number * self._patch_bytes)
                self._file.readinto(patch.data)
        return found
