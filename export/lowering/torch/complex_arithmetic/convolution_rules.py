"""Convolutions of complex tensors: one real convolution of twice as many channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import (
    RULES,
    Context,
    NotLowered,
    rule,
)

__all__: list[str] = []


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
    if kernel is None:
        raise NotLowered(
            "its weight depends on an input", "write it as convolutions of real and imaginary parts"
        )
    pair = context.pair(x)
    axes = len(pair.shape) - len(stride) - 1  # the axis of channels; 0 without a batch
    if axes != 1:
        raise NotLowered("its input has no batch", "add an axis of one in front")
    channels = torch.stack([part.unflatten(1, (groups, -1)) for part in pair.parts], 2).flatten(1, 3)
    stacked = context.constants.tensor(_real_kernel(kernel, groups, transposed), pair.dtype)
    settings = (stride, padding, dilation, transposed, output_padding, groups)
    result = operator(channels, stacked, None, *settings).unflatten(1, (groups, 2, -1))
    parts = [result.select(2, part).flatten(1, 2) for part in (0, 1)]
    product = LinearValue.of(Pair(*parts))
    if bias is None:
        return product
    offsets = RULES["view"](context, torch.ops.aten.view.default, bias, [-1, *[1] * len(stride)])
    return RULES["add"](context, torch.ops.aten.add.Tensor, product, offsets)


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
