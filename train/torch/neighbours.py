"""One object for several neighbouring patterns in Torch, as defined in `ptychonnx.train.initial_retrieval`.

Images are [row, part, column]. Offsets need not be whole pixels: the covariance is evaluated at the exact distance, and
merged values are interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ptychonnx.train.initial_retrieval import CORRELATION, DARKEST, FAINT, NEGLIGIBLE
from ptychonnx.train.torch.beam import Beam

__all__ = ["Neighbourhood", "Neighbours"]


class Neighbourhood(nn.Module):
    """Distances between the pixels of a window; returns `Neighbours` for offsets."""

    distance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        axis = torch.arange(size, dtype=torch.float32)
        self.register_buffer("distance", axis[:, None] - axis, persistent=False)

    def forward(self, offsets: Tensor, beam: Beam) -> Neighbours:
        """For offsets [B, C, 2] (row, column) in pixels, from any origin, and a beam for all groups or for each."""
        return Neighbours(offsets, beam.light.square() + DARKEST, self.distance, beam.step)


class Neighbours:
    """Windows of groups of patterns at known offsets."""

    def __init__(self, offsets: Tensor, density: Tensor, distance: Tensor, step: Tensor) -> None:
        self._shape = (-1, offsets.shape[1], len(distance))
        # Distance of each window [B, to, from, 1, 1] from each other one, along rows and along columns.
        rows, columns = (offsets[:, :, None] - offsets[:, None])[..., None, None].unbind(dim=3)
        self._rows = rows.transpose(1, 2) + distance  # [B, from, to, row there, row here]
        self._columns = columns - distance  # [B, to, from, column here, column there]
        self._covariance = self._carriers(_gaussian)
        self._values = self._carriers(_triangle)
        # [N, 1, N], or [B, 1, N, 1, N] with a beam for each group.
        self._density = density[:, None] if density.ndim == 2 else density[:, None, :, None]
        # An expand would leave shape arithmetic in the graph.
        every = offsets[:, :, :1, None, None] * 0 + self._density
        self._total = self._carry(every, self._values)
        brightest = self._total.amax(dim=(1, 2, 3, 4), keepdim=True)
        self._spread = torch.rsqrt(torch.sqrt(self._total / brightest + FAINT))
        self._step = step.reshape(-1, 1, 1, 1, 1) / brightest

    def merge(self, parts: Tensor) -> Tensor:
        """Merge patches [B, C, N, 2, N] where they overlap: means weighted by the illumination."""
        return self._carry(parts * self._density, self._values) / self._total

    def smooth(self, gradient: Tensor) -> Tensor:
        """Change of the object, [B C, N, 2, N], for gradients of that shape at each of its windows."""
        spread = self._spread
        gradient = gradient.reshape(*self._shape, 2, gradient.shape[-1]) * spread
        change = self._carry(gradient, self._covariance) * (spread * self._step)
        return change.reshape(-1, *change.shape[2:])

    def _carriers(self, kernel: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Matrices [B, from, (to, row), row] and [B, to, (from, column), column]."""
        _, members, size = self._shape
        shape = (-1, members, members * size, size)
        return kernel(self._rows).reshape(shape), kernel(self._columns).reshape(shape)

    def _carry(self, images: Tensor, carriers: tuple[Tensor, Tensor]) -> Tensor:
        """Sum of the images [B, C, N, parts, N] of all windows, at the position of each window."""
        _, members, size = self._shape
        parts = images.shape[3]
        rows, columns = carriers
        lines = rows @ images.reshape(-1, members, size, parts * size)
        lines = lines.reshape(-1, members, members, size, parts, size).permute(0, 2, 3, 4, 1, 5)
        carried = lines.reshape(-1, members, size * parts, members * size) @ columns
        return carried.reshape(-1, members, size, parts, size)


def _gaussian(distance: Tensor) -> Tensor:
    return torch.relu(torch.exp(distance * distance * (-0.5 / CORRELATION**2)) - NEGLIGIBLE)


def _triangle(distance: Tensor) -> Tensor:
    return torch.relu(1 - distance.abs())
