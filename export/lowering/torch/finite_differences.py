"""Finite differences of neuraloperator as one convolution each, with padding that every engine supports."""

from __future__ import annotations

import torch
from neuralop.layers.differential_conv import FiniteDifferenceConvolution
from torch import Tensor, nn
from torch.nn import functional

from ptychonnx.runtime.errors import VerificationError

__all__ = ["MergedFiniteDifference", "merge_finite_differences", "relative_error"]

_TOLERANCE = 1e-5


class MergedFiniteDifference(nn.Module):
    """`FiniteDifferenceConvolution` with the sum of its weights subtracted from the centre of the kernel.

    The original convolves twice, the second time with the sum of each kernel. A periodic domain is padded by
    concatenation, since OpenVINO does not support `Pad` with mode wrap.
    """

    def __init__(self, layer: FiniteDifferenceConvolution) -> None:
        super().__init__()
        self.width, self.groups, self.axes = layer.pad_size, layer.groups, range(2, 2 + layer.n_dim)
        self.padding_mode, self.convolve = layer.padding_mode, layer.conv_function
        kernel = layer.conv.weight.detach().clone()
        centre = (slice(None), slice(None), *[self.width] * layer.n_dim)
        kernel[centre] -= kernel.sum(dim=tuple(self.axes))
        self.register_buffer("kernel", kernel)

    def forward(self, x: Tensor, grid_width: float) -> Tensor:
        """[B, I, n_1 .. n_d] to [B, O, n_1 .. n_d]."""
        kernel = self.get_buffer("kernel") / grid_width
        if self.padding_mode == "zeros":
            return self.convolve(x, kernel, padding=self.width, groups=self.groups)
        if self.padding_mode == "circular":
            for axis in self.axes:
                end = x.narrow(axis, x.shape[axis] - self.width, self.width)
                x = torch.cat([end, x, x.narrow(axis, 0, self.width)], dim=axis)
        else:
            x = functional.pad(x, [self.width] * 2 * len(self.axes), mode=self.padding_mode)
        return self.convolve(x, kernel, groups=self.groups)


def relative_error(output: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected output, or over 1 if that is 0."""
    return float((output - expected).abs().max()) / (float(expected.abs().max()) or 1.0)


@torch.no_grad()
def merge_finite_differences(module: nn.Module) -> None:
    """Replace such layers of `module`, in place.

    Raises VerificationError if the output of a replacement differs from that of the original; the message contains its
    dotted path.
    """
    for name, layer in list(module.named_modules()):
        if not (name and isinstance(layer, FiniteDifferenceConvolution)):
            continue
        merged = MergedFiniteDifference(layer)
        generator = torch.Generator().manual_seed(0)
        shape = (1, layer.in_channels, *[2 * layer.kernel_size] * layer.n_dim)
        x = torch.randn(shape, generator=generator).to(merged.get_buffer("kernel").dtype)
        error = relative_error(merged(x, 0.5), layer(x, 0.5))
        # Written so that NaN fails.
        if not error <= _TOLERANCE:
            raise VerificationError(
                f"layer {name}: as one convolution it differs by {error:.1e} of the largest output, allowed "
                f"is {_TOLERANCE:.0e}"
            )
        module.set_submodule(name, merged)
