"""`uno`: neuraloperator's U-shaped neural operator (Rahman et al., TMLR 2023)."""

from __future__ import annotations

import contextlib
import io

from neuralop.models import UNO
from torch import Tensor

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.torch.blocks import ObjectHead, RetrievalNetwork, feature_channels

__all__ = ["Uno"]


class Uno(RetrievalNetwork):
    """Features, the library's network, the head that all physics-informed networks share."""

    def __init__(self, config: NetworkConfig, constants: RetrievalConstants) -> None:
        super().__init__(constants)
        self.operator = _operator(config)
        self.head = ObjectHead(config.width, config)

    def hidden(self, features: Tensor) -> Tensor:
        return self.operator(features)


def _operator(config: NetworkConfig) -> UNO:
    """`blocks` levels down, one layer at the bottom, as many up; the width doubles where the size is halved.

    Each layer of the way up takes the output of the layer of its own size on the way down.
    """
    down = config.blocks - 1
    widths = [config.width * 2**level for level in range(config.blocks)]
    scalings = [1.0, *[0.5] * down, 1.0, *[2.0] * down, 1.0]
    modes, size = [], float(config.n)
    for scaling in scalings:
        # A layer keeps no more modes than the smaller of its two sizes has.
        kept = min(config.modes, int(min(size, size * scaling)))
        modes.append([kept, kept])
        size *= scaling
    with contextlib.redirect_stdout(io.StringIO()):  # neuraloperator 2.0 prints two settings of every layer
        return UNO(
            in_channels=feature_channels(config),
            out_channels=config.width,
            hidden_channels=config.width,
            lifting_channels=2 * config.width,
            projection_channels=2 * config.width,
            n_layers=len(scalings),
            uno_out_channels=[*widths, widths[-1], *reversed(widths[:-1]), config.width],
            uno_n_modes=modes,
            uno_scalings=[[scaling, scaling] for scaling in scalings],
            channel_mlp_skip="linear",  # its default cannot change the number of channels
        )
