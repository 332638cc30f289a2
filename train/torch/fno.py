"""`fno`: lifter, Fourier blocks at full resolution, convolutional refiner."""

from __future__ import annotations

from torch import Tensor, nn

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import FirstGuess
from ptychonnx.train.torch.blocks import (
    Features,
    ObjectHead,
    PtychoBlock,
    convolutions,
    feature_channels,
    lifter,
)

__all__ = ["build"]


class Fno(nn.Module):
    """Every block sees the whole pattern, through its Fourier modes, at every pixel."""

    def __init__(self, config: NetworkConfig, guess: FirstGuess) -> None:
        super().__init__()
        self.features = Features(guess)
        self.lifter = lifter(feature_channels(config), config.width)
        self.blocks = nn.Sequential(
            *(PtychoBlock(config.width, config.modes, config.n) for _ in range(config.blocks))
        )
        self.refiner = convolutions(config.width, config.width)
        self.head = ObjectHead(config.width, config)

    def forward(self, diffraction: Tensor, offsets: Tensor | None = None) -> Tensor:
        features = self.features(diffraction, offsets)
        return self.head(self.refiner(self.blocks(self.lifter(features))), features)


def build(config: NetworkConfig, guess: FirstGuess) -> nn.Module:
    """The network, from amplitudes [B, C, N, N] to object parts [B, N, N, C, 2]."""
    return Fno(config, guess)
