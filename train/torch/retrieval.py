"""Steps of phase retrieval in Torch, as defined in `ptychonnx.train.initial_retrieval`.

Images are [row, part, column].
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from ptychonnx.train.initial_retrieval import INTENSITY_FLOOR, MOMENTUM, RetrievalConstants
from ptychonnx.train.torch.beam import Beam, BeamPreparation
from ptychonnx.train.torch.neighbours import Neighbourhood, Neighbours

__all__ = ["Refined", "Retrieval"]


class Retrieval(nn.Module):
    """Steps that bring an object [B, C, N, 2, N] closer to scaled amplitudes [B, C, N, N]."""

    probe: Tensor
    lit: Tensor
    back: Tensor
    rows_to_detector: Tensor
    columns_to_detector: Tensor
    columns_to_object: Tensor
    rows_to_object: Tensor
    smoothing: Tensor
    spread: Tensor
    valid: Tensor
    light: Tensor
    scale: Tensor
    step: Tensor
    exchange: Tensor

    def __init__(self, constants: RetrievalConstants) -> None:
        super().__init__()
        for name, value in vars(constants).items():
            if isinstance(value, np.ndarray):
                self.register_buffer(name, torch.from_numpy(value), persistent=False)
        for name in ("scale", "step"):
            self.register_buffer(
                name, torch.tensor(getattr(constants, name), dtype=torch.float32), persistent=False
            )
        self.register_buffer("exchange", torch.tensor([1, 0]), persistent=False)
        self.members = constants.members
        self.neighbourhood = Neighbourhood(len(constants.light))

    def forward(
        self,
        amplitude: Tensor,
        steps: int,
        offsets: Tensor | None = None,
        parts: Tensor | None = None,
        beam: Beam | None = None,
    ) -> Tensor:
        """Perform a number of steps with momentum.

        Raises ValueError if several patterns come without offsets, or one pattern with them.

        * `offsets`: [B, C, 2], offsets of the windows of the C patterns in one object, see `torch.neighbours`; if None,
          each pattern has an object of its own.
        * `parts`: initial object, whose patches are merged first; an empty object if None.
        * `beam`: from `torch.beam.BeamPreparation`, shared by all patterns or one for each object; the beam of the
          constants if None.
        """
        if (offsets is None) != (self.members == 1):
            raise ValueError(
                f"{self.members} patterns at a time, expected offsets if more than one, none otherwise"
            )
        beam = beam or self.own_beam()
        neighbours = None if offsets is None else self.neighbourhood(offsets, beam)
        beam = beam.repeated(self.members)
        if parts is None:
            nothing = amplitude * 0  # an expand would leave shape arithmetic in the graph
            parts = torch.stack([nothing + 1, nothing], dim=3)
        elif neighbours is not None:
            parts = neighbours.merge(parts)
        if not steps:
            return parts
        size = parts.shape[-1]
        start = self._product(parts.reshape(-1, 1, size, 2, size), beam.probe)
        wanted = (beam.valid * amplitude.reshape(-1, size, size)).unsqueeze(2)
        # Sums of gradients; the object changes by their smoothed values.
        change = velocity = self._gradient(start, wanted, beam)
        for _ in range(steps - 1):
            velocity = MOMENTUM * velocity
            change = change + velocity
            waves = start + self._product(self._smooth(change, neighbours)[:, None], beam.lit)
            gradient = self._gradient(waves, wanted, beam)
            velocity, change = velocity + gradient, change + gradient
        smooth = self._smooth(change, neighbours)
        if neighbours is None:
            smooth = beam.spread.unsqueeze(-2) * smooth
        return parts + smooth.reshape(parts.shape)

    def own_beam(self) -> Beam:
        """The beam of the constants."""
        return Beam(**{field.name: getattr(self, field.name) for field in fields(Beam)})

    def _gradient(self, waves: Tensor, wanted: Tensor, beam: Beam) -> Tensor:
        """Direction [B C, N, 2, N] in which exit waves [B C, modes, N, 2, N] explain the valid amplitudes better."""
        modes, size = waves.shape[1], waves.shape[-1]
        lines = self.rows_to_detector @ waves.reshape(-1, 2 * size, size)
        far = (lines.reshape(-1, size, 2 * size) @ self.columns_to_detector).reshape(-1, modes, size, 2, size)
        # Squared before they are parted: three kernels on a GPU instead of five.
        real, imaginary = (far * far).split(1, dim=3)
        intensity = (real + imaginary).sum(dim=1) + INTENSITY_FLOOR
        factor = (wanted / torch.sqrt(intensity) - beam.valid.unsqueeze(-2)).reshape(-1, 1, size, 1, size)
        lines = (far * factor).reshape(-1, size, 2 * size) @ self.columns_to_object
        change = (self.rows_to_object @ lines.reshape(-1, 2 * size, size)).reshape(-1, modes, size, 2, size)
        return self._product(change, beam.back).sum(dim=1)

    def _product(self, parts: Tensor, factor: Tensor) -> Tensor:
        return parts * factor[0] + parts.index_select(3, self.exchange) * factor[1]

    def _smooth(self, parts: Tensor, neighbours: Neighbours | None) -> Tensor:
        """Smoothed change of the object, [B C, N, 2, N]; without neighbours, `spread` is still to be applied."""
        if neighbours is not None:
            return neighbours.smooth(parts)
        size = parts.shape[-1]
        lines = self.smoothing @ parts.reshape(-1, size, 2 * size)
        return (lines.reshape(-1, 2 * size, size) @ self.smoothing).reshape(parts.shape)


class Refined(nn.Module):
    """A network, then the final retrieval steps, which make its object explain the pattern; fewer in training.

    With `probe`, `mask` and `scale` it uses that beam instead of the one that it was built for, see `torch.beam`: one
    for all patterns, computed once, or one for each (for each group, if it sees several patterns at a time). The
    network must then take a `Beam` as the keyword `beam`, as `torch.blocks.RetrievalNetwork` does.
    """

    def __init__(self, network: nn.Module, constants: RetrievalConstants) -> None:
        super().__init__()
        self.network = network
        self.retrieval = Retrieval(constants)
        self.scale = np.float32(constants.scale).item()
        self.final_steps, self.training_steps = constants.final_steps, constants.training_steps
        self.preparation = BeamPreparation(constants)

    def forward(
        self,
        diffraction: Tensor,
        offsets: Tensor | None = None,
        *,
        probe: Tensor | None = None,
        mask: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Object parts [B, N, N, C, 2] for amplitudes [B, C, N, N], and offsets [B, C, 2] if C > 1.

        `probe`, `mask` and `scale` are given all three or not at all; shapes in `torch.beam`.
        """
        steps = self.training_steps if self.training else self.final_steps
        inputs = (diffraction,) if offsets is None else (diffraction, offsets)
        if probe is None or mask is None or scale is None:
            parts = self.network(*inputs)
            beam, amplitude = None, diffraction * self.scale
        else:
            beam = self.preparation(probe, mask, scale)
            parts = self.network(*inputs, beam=beam)
            amplitude = diffraction * beam.scale
        parts = parts.permute(0, 3, 1, 4, 2)
        return self.retrieval(amplitude, steps, offsets, parts, beam).permute(0, 2, 4, 1, 3)
