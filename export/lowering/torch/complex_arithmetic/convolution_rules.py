"""Convolutions of complex tensors: one real convolution of twice as many channels, if the kernel is constant."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import Context, NotLowered, rule
from ptychonnx.export.lowering.torch.complex_arithmetic.tensor_views import reshaped

_NAMES = ("convolution", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)))


@rule(*_NAMES)
def _convolution(
    context: Context, operator: Any, x: Any, weight: Any, bias: Any = None, *settings: Any, **keywords: Any
) -> LinearValue:
    """Real and imaginary parts are channels next to each other within each group."""
    names = [argument.name for argument in operator._schema.arguments]
    named = dict(zip(names[3:], settings, strict=False)) | keywords
    groups = named.get("groups", 1)
    transposed = named.get("transposed", "transpose" in operator.overloadpacket.__name__)
    kernel = context.constant(weight)
    offsets = None if bias is None else context.constant(bias)
    if kernel is None or (bias is not None and offsets is None):
        return _by_parts(context, operator, x, weight, bias, named)
    pair = context.pair(x, 1)
    if len(pair.shape) != kernel.ndim:
        raise NotLowered("its input has no batch", "add an axis of one in front")
    batch, inside, *sizes = pair.shape
    stacked = pair.stacked(1)
    if groups > 1:
        stacked = reshaped(stacked, [batch, 2, groups, inside // groups, *sizes]).movedim(2, 1)
    real_kernel = context.constants.tensor(_real_kernel(kernel, groups, transposed), pair.dtype)
    channels = reshaped(stacked, [batch, 2 * inside, *sizes])
    result = operator(
        channels, real_kernel, _real_bias(context, offsets, groups, pair), *settings, **keywords
    )
    outside, sizes = result.shape[1] // 2, result.shape[2:]
    if groups > 1:
        result = reshaped(result, [batch, groups, 2, outside // groups, *sizes]).movedim(2, 1)
    return LinearValue.of(Pair(stacked=reshaped(result, [batch, 2, outside, *sizes]), gap=1))


def _by_parts(
    context: Context, operator: Any, x: Any, weight: Any, bias: Any, named: dict[str, Any]
) -> LinearValue:
    """With a kernel that depends on an input: four convolutions."""
    (a, b), (c, d) = context.pair(x).parts, context.pair(weight).parts
    offsets = (None, None) if bias is None else context.pair(bias).parts
    settings = named.values()
    real = operator(a, c, offsets[0], *settings) - operator(b, d, None, *settings)
    return LinearValue.of_parts(real, operator(a, d, offsets[1], *settings) + operator(b, c, None, *settings))


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
