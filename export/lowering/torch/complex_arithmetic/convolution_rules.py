"""Convolutions of complex tensors: one real convolution of twice as many channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import Context, NotLowered, rule
from ptychonnx.export.lowering.torch.complex_arithmetic.tensor_views import reshaped


@rule("convolution")
def _convolution(
    context: Context,
    operator: Any,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> LinearValue:
    """Real and imaginary parts are channels next to each other within each group."""
    kernel = context.constant(weight)
    offsets = None if bias is None else context.constant(bias)
    if kernel is None or (bias is not None and offsets is None):
        raise NotLowered(
            "its weight depends on an input", "write it as convolutions of real and imaginary parts"
        )
    pair = context.pair(x, 1)
    if len(pair.shape) != len(stride) + 2:
        raise NotLowered("its input has no batch", "add an axis of one in front")
    batch, inside, *sizes = pair.shape
    stacked = pair.stacked(1)
    if groups > 1:
        stacked = reshaped(stacked, [batch, 2, groups, inside // groups, *sizes]).movedim(2, 1)
    real_kernel = context.constants.tensor(_real_kernel(kernel, groups, transposed), pair.dtype)
    settings = (stride, padding, dilation, transposed, output_padding, groups)
    channels = reshaped(stacked, [batch, 2 * inside, *sizes])
    result = operator(channels, real_kernel, _real_bias(context, offsets, groups, pair), *settings)
    outside, sizes = result.shape[1] // 2, result.shape[2:]
    if groups > 1:
        result = reshaped(result, [batch, groups, 2, outside // groups, *sizes]).movedim(2, 1)
    return LinearValue.of(Pair(stacked=reshaped(result, [batch, 2, outside, *sizes]), gap=1))


def _real_bias(context: Context, bias: NDArray | None, groups: int, pair: Pair) -> Tensor | None:
    if bias is None:
        return None
    apart = bias.reshape(groups, -1)
    return context.constants.tensor(np.stack([apart.real, apart.imag], 1).reshape(-1), pair.dtype)


def _real_kernel(kernel: NDArray, groups: int, transposed: bool) -> NDArray:
    """``[[re, -im], [im, re]]`` for each pair of channels, from [outputs, inputs, ...] of a group.

    The kernel of a transposed convolution has the inputs of all groups first, and the outputs of a group second.
    """
    apart = kernel.reshape(groups, -1, *kernel.shape[1:])
    real, imaginary = apart.real, apart.imag
    lower = -imaginary if transposed else imaginary
    # [group, part, first, part, second, ...]
    rows = [np.stack([real, -lower], 2), np.stack([lower, real], 2)]
    block = np.stack(rows, 1)
    return block.reshape(2 * kernel.shape[0], 2 * kernel.shape[1], *kernel.shape[2:])
