"""`hybrid_resnet`: Fourier blocks while the size is halved twice, residual blocks at a quarter of it, transposed
convolutions back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.torch.blocks import ObjectHead, PtychoBlock, RetrievalNetwork, feature_channels, lifter

__all__ = ["HybridResnet"]

_HALVINGS = 2
_RESIDUAL_BLOCKS = 6
# Initial weight of a residual block: the network starts near the identity, and learns how much of each block to add.
_SCALE = 0.1


class ResidualBlock(nn.Module):
    """``y = x + scale * f(x)`` with two 3x3 convolutions, each normalised over the pixels of its channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            nn.InstanceNorm2d(channels, affine=True),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            nn.InstanceNorm2d(channels, affine=True),
        )
        self.scale = nn.Parameter(torch.tensor(_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.layers(x)


class HybridResnet(RetrievalNetwork):
    """PtychoPINN's later network, "SRU-Net", between the features and the head that all networks here share.

    A strided convolution halves the size and doubles the width after each of the first two Fourier blocks.
    """

    def __init__(self, config: NetworkConfig, constants: RetrievalConstants) -> None:
        super().__init__(constants)
        self.lifter = lifter(feature_channels(config), config.width)
        encoder: list[nn.Module] = []
        width, size = config.width, config.n
        self.sizes: list[int] = []
        for block in range(config.blocks):
            encoder.append(PtychoBlock(width, config.modes, size))
            if block < _HALVINGS:
                encoder.append(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1))
                self.sizes.append(size)
                width, size = 2 * width, (size + 1) // 2
        self.encoder = nn.Sequential(*encoder)
        self.bottom = nn.Sequential(*(ResidualBlock(width) for _ in range(_RESIDUAL_BLOCKS)))
        self.up = nn.ModuleList()
        for _ in self.sizes:
            self.up.append(nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1))
            width //= 2
        self.activation = nn.GELU()
        self.head = ObjectHead(width, config)

    def hidden(self, features: Tensor) -> Tensor:
        x = self.bottom(self.encoder(self.lifter(features)))
        for up, size in zip(self.up, reversed(self.sizes), strict=True):
            x = self.activation(up(x)[..., :size, :size])
        return x
