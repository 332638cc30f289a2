"""`hybrid`: lifter, U-shaped encoder of Fourier blocks, convolutional decoder with skip connections."""

from __future__ import annotations

import torch
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

__all__ = ["Hybrid"]


class Hybrid(RetrievalNetwork):
    """Each level of the encoder is a Fourier block, then a strided convolution that halves the size and doubles the
    width; each level of the decoder doubles the size, takes the skip connection and convolves twice.
    """

    def __init__(self, config: NetworkConfig, constants: RetrievalConstants) -> None:
        super().__init__(constants)
        self.lifter = lifter(feature_channels(config), config.width)
        self.blocks, self.down = nn.ModuleList(), nn.ModuleList()
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        width, size, sizes = config.width, config.n, []
        for _ in range(config.blocks - 1):
            self.blocks.append(PtychoBlock(width, config.modes, size))
            self.down.append(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1))
            sizes.append(size)
            width, size = 2 * width, (size + 1) // 2
        self.bottom = PtychoBlock(width, config.modes, size)
        for skipped in reversed(sizes):
            self.up.append(nn.Upsample(size=(skipped, skipped), mode="nearest"))
            self.merge.append(convolutions(width + width // 2, width // 2))
            width //= 2
        self.head = ObjectHead(width, config)

    def hidden(self, features: Tensor) -> Tensor:
        x = self.lifter(features)
        skips = []
        for block, down in zip(self.blocks, self.down, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skips.pop()], dim=1))
        return x
