"""What neuralop's UNO resamples in its own forward pass, between blocks, without a layer to replace."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

from neuralop.layers.resample import resample
from neuralop.models import uno
from torch import Tensor, nn

from ptychonnx.export.lowering.torch.dft_matrices import FourierChain, resampling_axes

__all__ = ["real_resampling"]


@contextlib.contextmanager
def real_resampling() -> Iterator[None]:
    """Within this, UNO resamples three axes and more by products of real matrices instead of Fourier transforms.

    One and two axes are interpolated as ever, except to the size that is there already, which changes nothing. A
    forward pass with real numbers has to come before one that an exporter traces: constants are made once for each
    size, and cannot be made while tracing.
    """
    uno.resample = _resample
    try:
        yield
    finally:
        uno.resample = resample


def _resample(
    x: Tensor, res_scale: Sequence[float], axis: Sequence[int], output_shape: Sequence[int] | None = None
) -> Tensor:
    size = tuple(x.shape[-len(axis) :])
    out = output_shape or [round(length * scale) for length, scale in zip(size, res_scale, strict=True)]
    if len(axis) < 3 or x.is_complex():
        return x if tuple(out) == size else resample(x, res_scale, axis, output_shape)
    return _chain(size, tuple(out))(x, x.shape[1])


@functools.cache
def _chain(size: tuple[int, ...], out_size: tuple[int, ...]) -> FourierChain:
    return FourierChain(resampling_axes(size, out_size), nn.Identity())
