"""Functions of torch that fix the batch while a module is traced, replaced by equal ones that keep it symbolic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["SymbolicBatch"]


class SymbolicBatch(TorchFunctionMode):
    """In this context the functions of `_REPLACED` take tensors whose batch is a symbol."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        replaced = _REPLACED.get(function)
        if replaced is not None and keywords.keys() <= _KEYWORDS and any(map(_has_symbolic_size, args)):
            result = replaced(*args, **keywords)
            if result is not NotImplemented:
                return result
        return function(*args, **keywords)


def _has_symbolic_size(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_symbolic_size, value))
    return isinstance(value, Tensor) and any(isinstance(size, SymInt) for size in value.shape)


def _kron(input: Tensor, other: Tensor) -> Tensor:
    count = max(input.ndim, other.ndim)
    outer = (1,) * (count - input.ndim) + tuple(input.shape)
    inner = (1,) * (count - other.ndim) + tuple(other.shape)
    product = input.reshape([size for length in outer for size in (length, 1)]) * other.reshape(
        [size for length in inner for size in (1, length)]
    )
    return product.reshape([one * two for one, two in zip(outer, inner, strict=True)])


def _take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        return input.flatten().gather(0, indices.flatten())
    axis = dim % input.ndim
    sizes = [
        torch.broadcast_shapes((one,), (other,))[0] if number != axis else 1
        for number, (one, other) in enumerate(zip(input.shape, indices.shape, strict=True))
    ]
    sources, rows = list(sizes), list(sizes)
    sources[axis], rows[axis] = input.shape[axis], indices.shape[axis]
    return input.expand(sources).gather(axis, indices.expand(rows))


def _mean(input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Any:
    if not input.is_complex():
        return NotImplemented
    axes = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return input.sum(tuple(axes), keepdim) / math.prod(input.shape[axis] for axis in axes)


def _diff(input: Tensor, n: int = 1, dim: int = -1) -> Any:
    if n != 1 or input.dtype == torch.bool:
        return NotImplemented
    return input.narrow(dim, 1, input.shape[dim] - 1) - input.narrow(dim, 0, input.shape[dim] - 1)


def _einsum(*operands: Any) -> Tensor:
    # Paths of opt_einsum are found for numbers.
    if not torch.backends.opt_einsum.enabled:
        return torch.einsum(*operands)
    with torch.backends.opt_einsum.flags(enabled=False):
        return torch.einsum(*operands)


# With other keyword arguments, such as `out`, the function of torch stays.
_KEYWORDS = {"dim", "keepdim", "n"}
_REPLACED: dict[Any, Callable[..., Any]] = {
    torch.kron: _kron,
    Tensor.kron: _kron,
    torch.take_along_dim: _take_along_dim,
    Tensor.take_along_dim: _take_along_dim,
    torch.mean: _mean,
    Tensor.mean: _mean,
    torch.diff: _diff,
    Tensor.diff: _diff,
    torch.einsum: _einsum,
}
