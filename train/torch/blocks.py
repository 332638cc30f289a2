"""Building blocks of the Torch architectures."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from neuralop.layers.spectral_convolution import SpectralConv
from torch import Tensor, nn

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import AMPLITUDE_GAIN, CONTRAST_GAIN, RetrievalConstants
from ptychonnx.train.torch.beam import Beam
from ptychonnx.train.torch.retrieval import Retrieval

__all__ = [
    "Features",
    "ObjectHead",
    "PtychoBlock",
    "RetrievalNetwork",
    "convolutions",
    "feature_channels",
    "lifter",
]


class Features(nn.Module):
    """Measured amplitudes [B, C, N, N], and offsets [B, C, 2] if C > 1, to features [B, 3 C + 1, N, N].

    Real and imaginary part of the retrieved object (see `initial_retrieval`) minus an empty one, logarithm of the
    scaled amplitude, and the amplitude of the probe, which marks the illuminated pixels.
    """

    light: Tensor

    def __init__(self, constants: RetrievalConstants) -> None:
        super().__init__()
        self.scale = np.float32(constants.scale).item()
        self.steps = constants.steps
        self.retrieval = Retrieval(constants)
        self.register_buffer("light", torch.from_numpy(constants.light), persistent=False)

    def forward(self, diffraction: Tensor, offsets: Tensor | None = None, beam: Beam | None = None) -> Tensor:
        amplitude = diffraction * (self.scale if beam is None else beam.scale)
        light = self.light if beam is None else beam.light
        retrieved = self.retrieval(amplitude, self.steps, offsets, beam=beam)
        features = [
            (retrieved[:, :, :, 0] - 1) * CONTRAST_GAIN,
            retrieved[:, :, :, 1] * CONTRAST_GAIN,
            torch.log1p(amplitude) * AMPLITUDE_GAIN,
            # An expand would leave shape arithmetic in the graph.
            amplitude[:, :1] * 0 + light.unsqueeze(-3),
        ]
        return torch.cat(features, dim=1)


class RetrievalNetwork(nn.Module, ABC):
    """Features, then hidden layers, then the head that all physics-informed networks share.

    A subclass sets `head` after its own layers: initial weights are drawn in the order of construction.
    """

    head: ObjectHead

    def __init__(self, constants: RetrievalConstants) -> None:
        super().__init__()
        self.features = Features(constants)

    @abstractmethod
    def hidden(self, features: Tensor) -> Tensor:
        """Features [B, 3 C + 1, N, N] to hidden features [B, width, N, N]."""

    def forward(self, diffraction: Tensor, offsets: Tensor | None = None, beam: Beam | None = None) -> Tensor:
        features = self.features(diffraction, offsets, beam)
        return self.head(self.hidden(features), features)


def feature_channels(config: NetworkConfig) -> int:
    """Number of channels of `Features`."""
    return 3 * config.channels + 1


class PtychoBlock(nn.Module):
    """``y = x + GELU(SpectralConv(x) + Conv3x3(x))``: global and local paths, then a residual."""

    def __init__(self, channels: int, modes: int, size: int) -> None:
        super().__init__()
        kept = min(modes, size)
        self.spectral = SpectralConv(channels, channels, (kept, kept))
        self.local = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.activation(self.spectral(x) + self.local(x))


class ObjectHead(nn.Module):
    """Hidden features [B, F, N, N] to the object's real and imaginary parts [B, N, N, C, 2].

    It predicts a correction of the retrieved object; an untrained head returns that object unchanged.
    """

    def __init__(self, hidden: int, config: NetworkConfig) -> None:
        super().__init__()
        self.channels = config.channels
        self.project = nn.Conv2d(hidden, 2 * self.channels, 1, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        both = features[:, : 2 * self.channels] + self.project(hidden)
        real, imaginary = both.split(self.channels, dim=1)
        parts = torch.stack([1 + real / CONTRAST_GAIN, imaginary / CONTRAST_GAIN], dim=-1)
        return parts.permute(0, 2, 3, 1, 4)


def convolutions(inside: int, outside: int) -> nn.Sequential:
    """Two 3x3 convolutions, each followed by a GELU."""
    return lifter(inside, outside).append(nn.GELU())


def lifter(inside: int, outside: int) -> nn.Sequential:
    """Two 3x3 convolutions with a GELU between: patterns to features, before any Fourier layer."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1), nn.GELU(), nn.Conv2d(outside, outside, 3, padding=1)
    )
