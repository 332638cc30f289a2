"""`residual` for ptychonnx. No framework is imported here: listing the architectures imports this module."""

from ptychonnx.train.registry import Architecture

__all__ = ["ARCHITECTURE"]

ARCHITECTURE = Architecture(
    "residual",
    "torch",
    "ptychonnx_residual.network:build",
    "residual convolutional blocks at full resolution",
    defaults={"width": 24, "blocks": 4},
)
