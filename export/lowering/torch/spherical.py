"""Lowering of neuraloperator's spherical convolutions to products of real matrices.

`neuralop.layers.spherical_convolution.SphericalConv` computes a spherical harmonic transform: a Fourier
transform along each circle of latitude, then for each order m a transform by Legendre functions along the
meridian. At a fixed size both are constant matrices, and only the kept orders and degrees are computed.

The matrices are the float64 impulse responses of the transforms in torch-harmonics, which reproduces its grids,
quadratures, norms and signs.

This module needs torch-harmonics, which is installed wherever a `SphericalConv` exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from neuralop.layers.spherical_convolution import SphericalConv
from torch import Tensor, nn
from torch_harmonics import InverseRealSHT, RealSHT

from ptychonnx.export.lowering.torch.mode_mixing import multiplied_out, real_block
from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["LoweredSphericalConv", "SphericalConv", "refusal"]


def refusal(layer: SphericalConv) -> str | None:
    """Why `layer` cannot be lowered; None if it can."""
    if layer.separable:
        # Its forward pass mistakes a weight [I, l] for one with three axes and raises.
        return "a separable SphericalConv does not run in neuraloperator 2.0 itself"
    return None


class LoweredSphericalConv(nn.Module):
    """A spherical convolution at one fixed size, in real arithmetic.

    With H latitudes and W longitudes, orders m, degrees l and p = 2 parts (real, imaginary), a value is::

        [B, I, H, W]      x
        [m, B, I, p, H]   longitude matrix from the left of each plane W x H, orders moved to the front
        [m, B, I, p, l]   @ Legendre functions [m, H, l]
        [l, m, B, O, p]   degrees moved to the front, @ one real block [[Wr, Wi], [-Wi, Wr]] per degree and
                          pair of channels: the weight is the same for all orders of a degree
        [m, B, O, p, H']  degrees moved back, @ Legendre functions [m, l, H']
        [B, O, H', W']    orders moved back, @ inverse longitude matrix, + bias

    Every transposition moves one axis (or swaps the last two), which is much faster than any other in engines.

    `skip`: `transform` of the original, which resamples a skip connection to the grid of the output. None if the layer
    keeps more orders than a transform of this size has: then the original cannot resample either.
    """

    bias: Tensor | None
    skip: _Resampling | None

    def __init__(self, layer: SphericalConv, size: Sequence[int], out_size: Sequence[int]) -> None:
        """Copy the weights of `layer` for inputs [B, I, *size] and outputs [B, O, *out_size]."""
        super().__init__()
        self.size, self.out_size = tuple(size), tuple(out_size)
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.resolution_scaling_factor = layer.resolution_scaling_factor
        self.same_grid = layer.sht_grids[0] == layer.sht_grids[1]
        degrees, orders = layer.n_modes[0], layer.n_modes[1] // 2
        for name, matrix in _matrices(layer, size, out_size, (degrees, orders)).items():
            self.register_buffer(name, matrix.float())
        weight = multiplied_out(layer.weight[:, :, :degrees])
        self.register_buffer("mixing", real_block(weight.permute(2, 0, 1)))
        can_resample = layer.n_modes[1] <= size[1] // 2 + 1
        self.skip = _Resampling(layer, size, out_size) if can_resample else None
        # Added to flattened pixels: some engines fail on [C, 1, 1] after a matrix product.
        bias = None if layer.bias is None else layer.bias.detach().reshape(self.out_channels, 1).clone()
        self.register_buffer("bias", bias)

    def transform(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """Resample `x` [B, C, *size] as the original layer does for a skip connection."""
        size = tuple(x.shape[-2:])
        factors = self.resolution_scaling_factor or (1, 1)
        scaled = [round(side * factor) for side, factor in zip(size, factors, strict=True)]
        out_size = tuple(scaled if output_shape is None else output_shape)
        if size == out_size and self.same_grid:
            return x
        if self.skip is None or (size, out_size) != (self.size, self.out_size):
            raise UnsupportedError(
                f"a skip connection is resampled from {size} to {out_size}, its SphericalConv was lowered "
                f"from {self.size} to {self.out_size}"
            )
        return self.skip(x)

    def forward(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """[B, I, *size] to [B, O, *out_size]; `output_shape` was fixed when the layer was lowered."""
        legendre, mixing = self.get_buffer("legendre"), self.get_buffer("mixing")
        orders, _, degrees = legendre.shape
        x = _to_orders(x, self.get_buffer("to_orders")) @ legendre
        x = x.reshape(orders, -1, 2 * self.in_channels, degrees).permute(3, 0, 1, 2)
        x = x.reshape(degrees, -1, 2 * self.in_channels) @ mixing
        x = x.reshape(degrees, orders, -1, 2 * self.out_channels).permute(1, 2, 3, 0)
        x = x.reshape(orders, -1, degrees) @ self.get_buffer("legendre_back")
        x = _to_longitudes(x, self.get_buffer("to_longitudes"), self.out_channels)
        if self.bias is not None:
            height, width = self.out_size
            x = x.reshape(-1, self.out_channels, height * width) + self.bias
            x = x.reshape(-1, self.out_channels, height, width)
        return x


class _Resampling(nn.Module):
    """From one grid to another through the spherical harmonics; the product of both Legendre matrices is constant."""

    def __init__(self, layer: SphericalConv, size: Sequence[int], out_size: Sequence[int]) -> None:
        super().__init__()
        # Twice as many orders as in the convolution, as in the original.
        matrices = _matrices(layer, size, out_size, layer.n_modes)
        self.register_buffer("to_orders", matrices["to_orders"].float())
        self.register_buffer("latitudes", (matrices["legendre"] @ matrices["legendre_back"]).float())
        self.register_buffer("to_longitudes", matrices["to_longitudes"].float())

    def forward(self, x: Tensor) -> Tensor:
        orders = _to_orders(x, self.get_buffer("to_orders")) @ self.get_buffer("latitudes")
        return _to_longitudes(orders, self.get_buffer("to_longitudes"), x.shape[1])


def _to_orders(x: Tensor, matrix: Tensor) -> Tensor:
    """[B, C, H, W] to [m, B C p, H] by a matrix [m p, W]."""
    channels, height, orders = x.shape[1], x.shape[2], matrix.shape[0] // 2
    x = (matrix @ x.transpose(2, 3)).reshape(-1, channels, orders, 2 * height)
    return x.permute(2, 0, 1, 3).reshape(orders, -1, height)


def _to_longitudes(x: Tensor, matrix: Tensor, channels: int) -> Tensor:
    """[m, B C p, H] to [B, C, H, W] by a matrix [m p, W]."""
    orders, _, height = x.shape
    x = x.reshape(orders, -1, channels, 2 * height).permute(1, 2, 0, 3)
    return x.reshape(-1, channels, 2 * orders, height).transpose(2, 3) @ matrix


def _matrices(
    layer: SphericalConv, size: Sequence[int], out_size: Sequence[int], modes: Sequence[int]
) -> dict[str, Tensor]:
    """Constant float64 matrices [m p, W], [m, H, l], [m, l, H'], [m p, W'] of the transform and its inverse."""
    (degrees, orders), (height, width), (out_height, out_width) = modes, size, out_size
    settings = {"lmax": degrees, "mmax": orders, "norm": layer.sht_norm}
    forward = RealSHT(height, width, grid=layer.sht_grids[0], **settings).double()
    inverse = InverseRealSHT(out_height, out_width, grid=layer.sht_grids[1], **settings).double()
    # The Fourier transform of the output grid cuts off orders that the grid cannot represent.
    kept = min(orders, out_width // 2 + 1)

    # An impulse at longitude 0 has a flat spectrum along longitude, so all scales are in the Legendre part.
    impulses = torch.zeros(height, height, width, dtype=torch.float64)
    impulses[:, :, 0] = torch.eye(height)
    legendre = torch.stack([forward(impulse).real for impulse in impulses])
    legendre = legendre.permute(2, 0, 1)[:kept]
    waves = torch.fft.rfft(torch.eye(width, dtype=torch.float64))[:, :kept]
    to_orders = torch.stack([waves.real, waves.imag], dim=-1).flatten(1).T

    # All orders of one degree at once: the Fourier transform separates them.
    harmonics = torch.eye(degrees, dtype=torch.complex128)[:, :, None].expand(-1, -1, orders).contiguous()
    legendre_back = torch.stack([torch.fft.rfft(inverse(one), norm="forward").real for one in harmonics])
    legendre_back = legendre_back.permute(2, 0, 1)[:kept]
    order = torch.eye(kept, dtype=torch.complex128)
    waves_back = [torch.fft.irfft(part * order, n=out_width, norm="forward") for part in (1, 1j)]
    to_longitudes = torch.stack(waves_back, dim=1).flatten(0, 1)
    return {
        "to_orders": to_orders,
        "legendre": legendre,
        "legendre_back": legendre_back,
        "to_longitudes": to_longitudes,
    }
