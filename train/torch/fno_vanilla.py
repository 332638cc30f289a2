"""`fno_vanilla`: neuraloperator's own FNO model, unchanged (Li et al., ICLR 2021).

What the parts of `fno` are worth shows beside it: here lifting, projection and skip connections work pixel by pixel,
so that only the Fourier modes carry anything from one pixel to another.
"""

from __future__ import annotations

from neuralop.models import FNO
from torch import Tensor, nn

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import FirstGuess
from ptychonnx.train.torch.blocks import Features, ObjectHead, feature_channels

__all__ = ["build"]


class VanillaFno(nn.Module):
    """Features, the library's network, the head that all physics-informed networks share."""

    def __init__(self, config: NetworkConfig, guess: FirstGuess) -> None:
        super().__init__()
        kept = min(config.modes, config.n)
        self.features = Features(guess)
        self.operator = FNO(
            n_modes=(kept, kept),
            in_channels=feature_channels(config),
            out_channels=config.width,
            hidden_channels=config.width,
            n_layers=config.blocks,
        )
        self.head = ObjectHead(config.width, config)

    def forward(self, diffraction: Tensor, offsets: Tensor | None = None) -> Tensor:
        features = self.features(diffraction, offsets)
        return self.head(self.operator(features), features)


def build(config: NetworkConfig, guess: FirstGuess) -> nn.Module:
    """The network, from amplitudes [B, C, N, N] to object parts [B, N, N, C, 2]."""
    return VanillaFno(config, guess)
