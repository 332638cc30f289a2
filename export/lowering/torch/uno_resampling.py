"""Resampling in the forward pass of neuralop's UNO, between blocks, where there is no layer to replace."""

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
    """In this context, UNO resamples three or more axes by products of real matrices instead of Fourier transforms.

    One or two axes are interpolated as usual, except to the same size, which would change nothing. An ordinary
    forward pass must precede the one that an exporter traces: constants are computed once per size, which is not
    possible while tracing.
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
