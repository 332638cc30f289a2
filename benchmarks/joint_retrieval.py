"""Phase retrieval of `train.initial_retrieval` on several neighbouring patterns at once, with one object for all of
them.

It uses FFTs instead of the matrices that a graph needs. The preconditioner is that of `train.initial_retrieval` for the
accumulated illumination of all windows of an object. With one window, the steps equal those of
`ptychonnx.train.torch.retrieval.Retrieval`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import illumination, window_corners
from ptychonnx.runtime.scan.grouping import nearest_groups
from ptychonnx.train.initial_retrieval import INTENSITY_FLOOR, MOMENTUM, preconditioner

__all__ = ["JointRetrieval", "retrieved_jointly"]

# Windows that are processed at once: few enough for the cache of a processor.
_WINDOWS = 64


class JointRetrieval:
    """Steps that bring G objects [G, S, S] closer to the scaled amplitudes [G, k, N, N] of their k windows."""

    def __init__(
        self,
        probe: NDArray[np.complexfloating],
        corners: NDArray[np.integer],
        side: int,
        mask: NDArray[np.bool_],
    ) -> None:
        """Set up the windows.

        Parameters
        ----------
        probe
            complex [modes, N, N], scaled as the amplitudes are.
        corners
            [G, k, 2], (row, column) of the upper left corner of each window in its object, whole pixels.
        side
            S, side of each object. Pixels outside all windows do not affect the others.
        mask
            bool [N, N], True for valid pixels of the detector.
        """
        self._size = probe.shape[-1]
        self._shape = (len(corners), side, side)
        self._windows = [
            (index, slice(row, row + self._size), slice(column, column + self._size))
            for index, group in enumerate(corners.tolist())
            for row, column in group
        ]
        expected = preconditioner(
            self._sum_windows(illumination(probe)[None].repeat(len(self._windows), axis=0))
        )
        self._spread = torch.from_numpy(expected.spread.astype(np.float32))
        self._step = torch.from_numpy((expected.step * expected.spread).astype(np.float32))
        self._smoothing = torch.from_numpy(expected.smoothing.astype(np.complex64))
        self._probe = torch.from_numpy(probe.astype(np.complex64))
        self._valid = torch.from_numpy(_corner(mask).astype(np.float32))

    def steps(self, start: NDArray[np.complex64], amplitude: NDArray[np.float32]) -> Iterator[Tensor]:
        """Yield the objects after each step, without end; with Nesterov momentum."""
        wanted = self._valid * torch.from_numpy(_corner(amplitude).reshape(-1, self._size, self._size))
        ahead = last = torch.from_numpy(start)
        while True:
            gradient = self._spread * self._gradient(ahead, wanted)
            now = ahead + self._step * (self._smoothing @ gradient @ self._smoothing)
            ahead, last = now + MOMENTUM * (now - last), now
            yield now

    def _gradient(self, objects: Tensor, wanted: Tensor) -> Tensor:
        """Descent direction [G, S, S] for the amplitude error over the valid pixels [G k, N, N] of all windows."""
        known = objects.numpy()
        patches = torch.from_numpy(np.stack([known[window] for window in self._windows]))
        far = torch.fft.fft2(self._probe * patches[:, None], norm="ortho")
        intensity = (far.real.square() + far.imag.square()).sum(dim=1) + INTENSITY_FLOOR
        factor = wanted / torch.sqrt(intensity) - self._valid
        change = torch.fft.ifft2(far * factor[:, None], norm="ortho")
        return torch.from_numpy(self._sum_windows((self._probe.conj() * change).sum(dim=1).numpy()))

    def _sum_windows(self, images: NDArray) -> NDArray:
        """Sums [G, S, S] of images [G k, N, N], each in its window."""
        total = np.zeros(self._shape, dtype=images.dtype)
        for window, image in zip(self._windows, images, strict=True):
            total[window] += image
        return total


def _corner(images: NDArray) -> NDArray:
    """Move DC from the centre to the first pixel."""
    return np.fft.ifftshift(images, axes=(-2, -1))


def retrieved_jointly(scan: Scan, members: int, steps: Collection[int]) -> dict[int, NDArray[np.complex64]]:
    """Retrieve the patch [n, N, N] of each pattern jointly with its nearest neighbours, for several numbers of steps.

    Each pattern has an object of its own, which starts empty and is fitted to `members` patterns: its own and the
    nearest ones. The window of the pattern is cut from that object. Patterns with the same members share an object.

    Raises
    ------
    InputError
        If the scan has fewer than `members` patterns.
    """
    size = scan.size
    scale = np.float32(size / np.sqrt(scan.flux))
    groups, group_of = np.unique(
        np.sort(nearest_groups(scan.positions, members), axis=1), axis=0, return_inverse=True
    )
    corners = np.rint(window_corners(scan.positions, size)).astype(int)
    origins = corners[groups].min(axis=1)
    places = corners[groups] - origins[:, None]
    own = corners - origins[group_of]
    side = int(places.max()) + size
    found = {number: np.empty((len(scan), size, size), dtype=np.complex64) for number in steps}
    together = max(1, _WINDOWS // members)
    for first in range(0, len(groups), together):
        some = slice(first, first + together)
        retrieval = JointRetrieval(scan.probe * scale, places[some], side, scan.mask)
        empty = np.ones((len(groups[some]), side, side), dtype=np.complex64)
        kept = np.flatnonzero((group_of >= first) & (group_of < first + together))
        objects = retrieval.steps(empty, scale * scan.diffraction[groups[some]])
        for number, after in zip(range(1, max(steps) + 1), objects, strict=False):
            if number in found:
                windows = np.lib.stride_tricks.sliding_window_view(after.numpy(), (size, size), axis=(1, 2))
                found[number][kept] = windows[group_of[kept] - first, own[kept, 0], own[kept, 1]]
    return found
