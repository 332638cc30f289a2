"""The three Fourier operators to which torch decomposes all of `torch.fft` and `torch.stft`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import Fourier
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.products import compute
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import Context, NotLowered, is_complex, rule


def _scale(norm: int, size: int) -> float:
    """The scale along one axis: torch's numbers for no normalisation, by the root, and by the number of points."""
    return {0: 1.0, 1: size**-0.5, 2: 1.0 / size}[norm]


def _transform(
    context: Context,
    value: LinearValue,
    axis: int,
    sign: int,
    norm: int,
    size: int | None = None,
    scales: NDArray | None = None,
) -> LinearValue:
    if not value.fixed(axis):
        raise NotLowered(
            f"it transforms axis {axis}, the batch, whose size is not fixed",
            "transform another axis, or fix the batch: --batch N exports the module for batches of N alone",
        )
    size = size or value.shape[axis]
    if not size:
        raise NotLowered(f"it transforms axis {axis} of size 0")
    transform = Fourier(size, sign, _scale(norm, size))
    result = value.transformed(axis, transform, scales)
    if result is None:
        result = LinearValue.of(compute(value, context.constants)).transformed(axis, transform, scales)
    assert result is not None
    return result


@rule("_fft_r2c")
def _real_to_complex(
    context: Context, operator: Any, x: Any, dim: Sequence[int], norm: int, onesided: bool
) -> LinearValue:
    value = context.value(x)
    *others, last = [value.axis(axis) for axis in dim]
    result = _transform(context, value, last, -1, norm)
    if onesided:
        result = result.select(last, np.arange(value.shape[last] // 2 + 1))
    for axis in others:
        result = _transform(context, result, axis, -1, norm)
    return result


@rule("_fft_c2c")
def _complex_to_complex(
    context: Context, operator: Any, x: Any, dim: Sequence[int], norm: int, forward: bool
) -> LinearValue:
    result = context.value(x)
    for axis in dim:
        result = _transform(context, result, result.axis(axis), -1 if forward else 1, norm)
    return result


@rule("_fft_c2r")
def _complex_to_real(
    context: Context, operator: Any, x: Any, dim: Sequence[int], norm: int, last_dim_size: int
) -> LinearValue:
    value = context.value(x)
    *others, last = [value.axis(axis) for axis in dim]
    for axis in others:
        value = _transform(context, value, axis, 1, norm)
    size = int(last_dim_size)
    kept = size // 2 + 1
    value = value.select(last, np.concatenate([np.arange(kept), np.full(size - kept, -1)]))
    # Every frequency but the first, and the last of an even size, stands for a conjugate pair. The real part of the
    # transform ignores the imaginary parts of those two, as torch does.
    scales = np.full(size, 2.0)
    scales[0] = 1
    if size % 2 == 0:
        scales[size // 2] = 1
    return _transform(context, value, last, 1, norm, size, scales).real_part()


@rule("unfold_backward")
def _overlap_add(
    context: Context, operator: Any, frames: Any, sizes: Sequence, dim: int, size: int, step: int
) -> Any:
    """Add overlapping frames, which `torch.istft` does: as many sums as frames overlap, of whole signals."""
    if is_complex(frames):
        return context.each(
            frames, lambda part: _overlap_add(context, operator, part, sizes, dim, size, step)
        )
    x = context.real(frames)
    axis = dim % (x.ndim - 1)
    x = x.movedim(axis, -2)
    count, overlap = x.shape[-2], -(-size // step)
    x = functional.pad(x, [0, overlap * step - size])
    pieces = x.unflatten(-1, (overlap, step))
    total: Any = 0
    for number in range(overlap):
        piece = pieces.select(-2, number).flatten(-2)
        piece = functional.pad(piece, [number * step, (overlap - 1 - number) * step])
        total = total + piece if number else piece
    length = (count + overlap - 1) * step
    wanted = int(sizes[axis])
    total = functional.pad(total, [0, wanted - length]) if wanted != length else total
    return total.movedim(-1, axis)
