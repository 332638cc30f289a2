"""`ffno`: Fourier layers that transform one axis at a time (Tran et al., ICLR 2023, "Factorized Fourier Neural
Operators").

A layer has a weight for each kept frequency of an axis, not for each pair of frequencies, so that the number of
weights grows with the modes and not with their square: all modes of a pattern are affordable.
"""

from __future__ import annotations

from neuralop.layers.channel_mlp import ChannelMLP
from neuralop.layers.spectral_convolution import SpectralConv
from torch import Tensor, nn

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.torch.blocks import ObjectHead, RetrievalNetwork, convolutions, feature_channels, lifter

__all__ = ["Ffno"]

# Hidden channels of a block's feed-forward network over its channels; the paper takes 4 at twice our width and more.
_EXPANSION = 2


class RowConv(nn.Module):
    """neuraloperator's one-dimensional `SpectralConv` along the last axis of [B, C, rows, columns]."""

    def __init__(self, channels: int, modes: int) -> None:
        super().__init__()
        self.spectral = SpectralConv(channels, channels, (modes,), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        _, channels, rows, columns = x.shape
        lines = x.transpose(1, 2).reshape(-1, channels, columns)
        return self.spectral(lines).reshape(-1, rows, channels, columns).transpose(1, 2)


class FactorizedBlock(nn.Module):
    """``y = x + MLP(K_rows(x) + K_columns(x))``: the residual is added behind the nonlinearity, as in the paper."""

    def __init__(self, channels: int, modes: int) -> None:
        super().__init__()
        self.rows = RowConv(channels, modes)
        self.columns = RowConv(channels, modes)
        self.feed_forward = ChannelMLP(channels, hidden_channels=_EXPANSION * channels)

    def forward(self, x: Tensor) -> Tensor:
        along_columns = self.columns(x.transpose(-2, -1)).transpose(-2, -1)
        return x + self.feed_forward(self.rows(x) + along_columns)


class Ffno(RetrievalNetwork):
    """Lifter and refiner as in `fno`, factorised blocks between."""

    def __init__(self, config: NetworkConfig, constants: RetrievalConstants) -> None:
        super().__init__(constants)
        modes = min(config.modes, config.n)
        self.lifter = lifter(feature_channels(config), config.width)
        self.blocks = nn.Sequential(*(FactorizedBlock(config.width, modes) for _ in range(config.blocks)))
        self.refiner = convolutions(config.width, config.width)
        self.head = ObjectHead(config.width, config)

    def hidden(self, features: Tensor) -> Tensor:
        return self.refiner(self.blocks(self.lifter(features)))
