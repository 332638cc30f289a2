"""`fno_vanilla`: neuraloperator's own FNO model, unchanged (Li et al., ICLR 2021).

What the parts of `fno` are worth shows beside it: here lifting, projection and skip connections work pixel by pixel,
so that only the Fourier modes carry anything from one pixel to another.
"""

from __future__ import annotations

from neuralop.models import FNO
from torch import Tensor

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.torch.blocks import ObjectHead, RetrievalNetwork, feature_channels

__all__ = ["VanillaFno"]


class VanillaFno(RetrievalNetwork):
    """Features, the library's network, the head that all physics-informed networks share."""

    def __init__(self, config: NetworkConfig, constants: RetrievalConstants) -> None:
        super().__init__(constants)
        kept = min(config.modes, config.n)
        self.operator = FNO(
            n_modes=(kept, kept),
            in_channels=feature_channels(config),
            out_channels=config.width,
            hidden_channels=config.width,
            n_layers=config.blocks,
        )
        self.head = ObjectHead(config.width, config)

    def hidden(self, features: Tensor) -> Tensor:
        return self.operator(features)
