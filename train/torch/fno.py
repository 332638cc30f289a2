"""`fno`: lifter, Fourier blocks at full resolution, convolutional refiner."""

from __future__ import annotations

from torch import Tensor, nn

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.torch.blocks import (
    ObjectHead,
    PtychoBlock,
    RetrievalNetwork,
    convolutions,
    feature_channels,
    lifter,
)

__all__ = ["Fno"]


class Fno(RetrievalNetwork):
    """Every block sees the whole pattern, through its Fourier modes, at every pixel."""

    def __init__(self, config: NetworkConfig, constants: RetrievalConstants) -> None:
        super().__init__(constants)
        self.lifter = lifter(feature_channels(config), config.width)
        self.blocks = nn.Sequential(
            *(PtychoBlock(config.width, config.modes, config.n) for _ in range(config.blocks))
        )
        self.refiner = convolutions(config.width, config.width)
        self.head = ObjectHead(config.width, config)

    def hidden(self, features: Tensor) -> Tensor:
        return self.refiner(self.blocks(self.lifter(features)))
