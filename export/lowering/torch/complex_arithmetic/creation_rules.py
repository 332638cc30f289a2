"""Tensors of one value, and sizes."""

from __future__ import annotations

import math
from typing import Any

import torch

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import REAL_TYPES, Constant, Context, rule


@rule("fill")
def _fill(context: Context, operator: Any, x: Any, fill: Any) -> LinearValue:
    shape = tuple(context.value(x).shape)
    real, imaginary = context.both_parts(fill)
    dtype = context.value(x).dtype
    parts = [torch.as_tensor(part, dtype=dtype).expand(shape) for part in (real, imaginary)]
    return LinearValue.of(Pair(*parts))


_LIKE = ("full_like", "zeros_like", "ones_like", "empty_like")
_NEW = ("new_zeros", "new_full", "new_ones", "new_empty")


@rule(*_LIKE, *_NEW, "full", "zeros", "ones", "empty", "scalar_tensor")
def _full(context: Context, operator: Any, *args: Any, **keywords: Any) -> LinearValue:
    name = operator.overloadpacket.__name__
    fill: Any = float("ones" in name)
    if name == "scalar_tensor":
        shape, fill = (), args[0]
    elif name in _LIKE:
        shape = context.value(args[0]).shape
        fill = args[1] if name == "full_like" else fill
    elif name in _NEW:
        shape = args[1]
        fill = args[2] if name == "new_full" else fill
    else:
        shape = args[0]
        fill = args[1] if name == "full" else fill
    wanted = keywords.get("dtype")
    dtype = REAL_TYPES.get(wanted)
    if dtype is None and wanted is None and args and isinstance(args[0], LinearValue | Constant):
        dtype = context.value(args[0]).dtype
    dtype = dtype or torch.float32
    if fill == 0:
        return LinearValue(shape, dtype, [])
    fill = complex(fill)
    return LinearValue.of(
        Pair(torch.full(shape, fill.real, dtype=dtype), torch.full(shape, fill.imag, dtype=dtype))
    )


@rule("sym_size")
def _size(context: Context, operator: Any, x: Any, dim: int) -> Any:
    return context.value(x).shape[dim]


@rule("sym_numel", "numel")
def _count(context: Context, operator: Any, x: Any) -> Any:
    return math.prod(context.value(x).shape)


@rule("_assert_tensor_metadata")
def _nothing(context: Context, operator: Any, *args: Any, **keywords: Any) -> None:
    return None
