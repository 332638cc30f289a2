"""`residual`: residual convolutional blocks at full resolution."""

from torch import Tensor, nn

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.torch.blocks import Features, ObjectHead, convolutions, feature_channels, lifter


class Residual(nn.Module):
    """Input features and output head of the built-in networks, with blocks of your own in between."""

    def __init__(self, config: NetworkConfig, constants: RetrievalConstants) -> None:
        super().__init__()
        self.features = Features(constants)
        self.lifter = lifter(feature_channels(config), config.width)
        self.blocks = nn.ModuleList(convolutions(config.width, config.width) for _ in range(config.blocks))
        self.head = ObjectHead(config.width, config)

    def forward(self, diffraction: Tensor, offsets: Tensor | None = None) -> Tensor:
        features = self.features(diffraction, offsets)
        x = self.lifter(features)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x, features)


def build(config: NetworkConfig, constants: RetrievalConstants) -> nn.Module:
    """The network, from amplitudes [B, C, N, N] to object parts [B, N, N, C, 2]."""
    return Residual(config, constants)
