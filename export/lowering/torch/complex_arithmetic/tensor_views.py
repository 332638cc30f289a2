"""Views of tensors that leave as little as possible for an engine to do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["permuted", "reshaped", "select_entries"]


def reshaped(x: Tensor, shape: Sequence) -> Tensor:
    """`x` in another shape, of which one size may be symbolic."""
    sizes = list(shape)
    if len(sizes) == x.ndim and all(
        a is b or (type(a) is type(b) is int and a == b) for a, b in zip(sizes, x.shape, strict=True)
    ):
        return x
    symbolic = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    if len(symbolic) == 1:
        sizes[symbolic[0]] = -1
    return x.reshape(sizes)


def permuted(x: Tensor, order: Sequence[int]) -> Tensor:
    """`x.permute(order)`; axes that stay together are moved as one."""
    groups: list[list[int]] = []
    for axis in order:
        if groups and axis == groups[-1][-1] + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    if len(groups) == 1:
        return x
    starts = sorted(group[0] for group in groups)
    shape = list(x.shape)
    by_start = {group[0]: group for group in groups}
    merged = [math.prod(shape[axis] for axis in by_start[start]) for start in starts]
    moved = reshaped(x, merged).permute([starts.index(group[0]) for group in groups])
    return reshaped(moved, [shape[axis] for axis in order])


def select_entries(x: Tensor, axis: int, rows: NDArray[np.int64]) -> Tensor:
    """Entries of `x` along an axis; -1 is a zero. Slices, reversals and zero padding are recognised."""
    size = x.shape[axis]
    if isinstance(size, int) and np.array_equal(rows, np.arange(size)):
        return x
    positive = np.flatnonzero(rows >= 0)
    if len(positive) == 0:
        shape = list(x.shape)
        shape[axis] = len(rows)
        return x.new_zeros(shape)
    first, last = int(positive[0]), int(positive[-1])
    if last - first + 1 == len(positive) and len(positive) < len(rows):
        inner = select_entries(x, axis, rows[first : last + 1])
        widths = [0, 0] * (x.ndim - 1 - axis) + [first, len(rows) - 1 - last]
        return functional.pad(inner, widths)
    if len(positive) < len(rows):
        # Zeros in between: from one more entry, which is zero.
        padded = functional.pad(x, [0, 0] * (x.ndim - 1 - axis) + [0, 1])
        return select_entries(padded, axis, np.where(rows < 0, int(size), rows))
    steps = np.unique(np.diff(rows)) if len(rows) > 1 else np.array([1])
    start, stop = int(rows[0]), int(rows[-1])
    if len(steps) == 1 and steps[0] >= 1:
        index = [slice(None)] * axis + [slice(start, stop + 1, int(steps[0]))]
        return x[tuple(index)]
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    if len(runs) <= 4:
        return torch.cat([x.narrow(axis, int(run[0]), len(run)) for run in runs], dim=axis)
    return x.index_select(axis, torch.from_numpy(rows.copy()))
