"""Phase retrieval steps in Torch; same definition as `train.first_guess`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from train.first_guess import INTENSITY_FLOOR, MOMENTUM, FirstGuess

__all__ = ["Refined", "Retrieval"]

_CONSTANTS = (
    "probe",
    "lit",
    "back",
    "rows_to_detector",
    "columns_to_detector",
    "columns_to_object",
    "rows_to_object",
    "smoothing",
    "spread",
    "trusted",
)


class Retrieval(nn.Module):
    """Steps that bring an object [B, C, 2, N, N] (real and imaginary part) closer to scaled amplitudes [B, C, N, N]."""

    probe: Tensor
    lit: Tensor
    back: Tensor
    rows_to_detector: Tensor
    columns_to_detector: Tensor
    columns_to_object: Tensor
    rows_to_object: Tensor
    smoothing: Tensor
    spread: Tensor
    trusted: Tensor
    exchange: Tensor

    def __init__(self, guess: FirstGuess) -> None:
        super().__init__()
        for name in _CONSTANTS:
            self.register_buffer(name, torch.from_numpy(getattr(guess, name)), persistent=False)
        self.register_buffer("exchange", torch.tensor([1, 0]), persistent=False)

    def forward(self, parts: Tensor, amplitude: Tensor, steps: int) -> Tensor:
        """That many steps, with momentum."""
        if not steps:
            return parts
        size = parts.shape[-1]
        start = self._product(parts.reshape(-1, 1, 2, size, size), self.probe)
        wanted = self.trusted * amplitude.reshape(-1, size, size)
        # Sums of gradients; the object changes by their smoothed values.
        change = velocity = self._gradient(start, wanted)
        for _ in range(steps - 1):
            velocity = MOMENTUM * velocity
            change = change + velocity
            waves = start + self._product(self._smooth(change)[:, None], self.lit)
            gradient = self._gradient(waves, wanted)
            velocity, change = velocity + gradient, change + gradient
        return parts + (self.spread * self._smooth(change)).reshape(parts.shape)

    def _gradient(self, waves: Tensor, wanted: Tensor) -> Tensor:
        """Direction [B C, 2, N, N] in which exit waves [B C, modes, 2, N, N] explain the trusted amplitudes better."""
        modes, size = waves.shape[1], waves.shape[-1]
        lines = self.rows_to_detector @ waves.reshape(-1, 2 * size, size)
        far = (lines.reshape(-1, size, 2 * size) @ self.columns_to_detector).reshape(-1, modes, size, 2, size)
        real, imaginary = far.unbind(dim=3)
        intensity = (real * real + imaginary * imaginary).sum(dim=1) + INTENSITY_FLOOR
        factor = (wanted / torch.sqrt(intensity) - self.trusted).reshape(-1, 1, size, 1, size)
        lines = (far * factor).reshape(-1, size, 2 * size) @ self.columns_to_object
        change = (self.rows_to_object @ lines.reshape(-1, 2 * size, size)).reshape(-1, modes, 2, size, size)
        return self._product(change, self.back).sum(dim=1)

    def _product(self, parts: Tensor, factor: Tensor) -> Tensor:
        return parts * factor[0] + parts.index_select(2, self.exchange) * factor[1]

    def _smooth(self, parts: Tensor) -> Tensor:
        return self.smoothing @ parts @ self.smoothing


class Refined(nn.Module):
    """A network, then the last retrieval steps, which make its object explain the pattern; fewer in training."""

    def __init__(self, network: nn.Module, guess: FirstGuess) -> None:
        super().__init__()
        self.network = network
        self.retrieval = Retrieval(guess)
        self.scale = np.float32(guess.scale).item()
        self.final_steps, self.training_steps = guess.final_steps, guess.training_steps

    def forward(self, diffraction: Tensor) -> Tensor:
        steps = self.training_steps if self.training else self.final_steps
        parts = self.network(diffraction).permute(0, 3, 4, 1, 2)
        return self.retrieval(parts, diffraction * self.scale, steps).permute(0, 3, 4, 1, 2)
