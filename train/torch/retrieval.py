"""Phase retrieval steps in Torch; same definition as `train.first_guess`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from train.first_guess import INTENSITY_FLOOR, MOMENTUM, FirstGuess

__all__ = ["Refined", "Retrieval"]


class Retrieval(nn.Module):
    """Steps that bring an object (real and imaginary part, each [B, C, N, N]) closer to scaled amplitudes."""

    probe: Tensor
    back: Tensor
    to_detector: Tensor
    to_object: Tensor
    smoothing: Tensor
    spread: Tensor
    trusted: Tensor

    def __init__(self, guess: FirstGuess) -> None:
        super().__init__()
        constants = {
            "probe": guess.probe,
            "back": guess.back,
            "to_detector": guess.forward,
            "to_object": guess.inverse,
            "smoothing": guess.smoothing,
            "spread": guess.spread,
            "trusted": guess.trusted,
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(
        self, real: Tensor, imaginary: Tensor, amplitude: Tensor, steps: int
    ) -> tuple[Tensor, Tensor]:
        """That many steps, with momentum."""
        ahead = last = (real, imaginary)
        for number in range(steps):
            now = self.step(*ahead, amplitude)
            if number < steps - 1:
                ahead = (now[0] + MOMENTUM * (now[0] - last[0]), now[1] + MOMENTUM * (now[1] - last[1]))
            last = now
        return last

    def step(self, real: Tensor, imaginary: Tensor, amplitude: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        waves = [_transform(*_product(real, imaginary, mode), self.to_detector) for mode in self.probe]
        first, *others = (a * a + b * b for a, b in waves)
        intensity = sum(others, first) + INTENSITY_FLOOR
        change = self.trusted * (amplitude / torch.sqrt(intensity) - 1)
        updates = [
            _product(*_transform(change * a, change * b, self.to_object), mode)
            for (a, b), mode in zip(waves, self.back, strict=True)
        ]
        up, down = (sum(parts) for parts in zip(*updates, strict=True))
        return real + self._smooth(up), imaginary + self._smooth(down)

    def _smooth(self, part: Tensor) -> Tensor:
        return self.spread * ((part @ self.smoothing).mT @ self.smoothing).mT


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
        parts = self.network(diffraction).permute(0, 3, 1, 2, 4)
        real, imaginary = self.retrieval(parts[..., 0], parts[..., 1], diffraction * self.scale, steps)
        return torch.stack([real, imaginary], dim=-1).permute(0, 2, 3, 1, 4)


def _product(real: Tensor, imaginary: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Product with a complex constant [2, N, N]."""
    return real * factor[0] - imaginary * factor[1], real * factor[1] + imaginary * factor[0]


def _transform(real: Tensor, imaginary: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Fourier transform of both axes: twice of the last one, which is then turned into the other."""
    for _ in range(2):
        real, imaginary = (torch.cat([real, imaginary], dim=-1) @ matrix).chunk(2, dim=-1)
        real, imaginary = real.mT, imaginary.mT
    return real, imaginary
