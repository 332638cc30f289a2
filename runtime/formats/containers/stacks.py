"""Stacks of patterns that are read a block at a time, however they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.formats.containers.hdf5_storage import unwritten

__all__ = [
    "ConcatenatedStack",
    "RasterStack",
    "SelectedStack",
    "Stack",
    "patterns_together",
    "unwritten_patterns",
]


class Stack(Protocol):
    """Patterns [n, rows, columns]: an array, an HDF5 dataset, or one of the views below."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, rows, columns)."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""

    def __getitem__(self, index: Any) -> NDArray:
        """A block: (slice of patterns, slice of rows, slice of columns)."""


def patterns_together(stack: Stack) -> int:
    """Number of patterns that a file stores, and possibly compresses, in one piece."""
    if isinstance(stack, ConcatenatedStack | SelectedStack | RasterStack):
        return stack.together
    # Only HDF5 datasets have chunks; None if they are contiguous.
    chunks = getattr(stack, "chunks", None)
    return int(chunks[0]) if chunks else 1


def unwritten_patterns(stack: Stack) -> NDArray[np.bool_]:
    """True for each pattern that was never written to its file, [n]."""
    if isinstance(stack, ConcatenatedStack):
        return np.concatenate([unwritten_patterns(part) for part in stack.parts])
    if isinstance(stack, SelectedStack):
        return unwritten_patterns(stack.stack)[stack.rows]
    stored, leading = (stack.raster, 2) if isinstance(stack, RasterStack) else (stack, 1)
    parts = stored.parts if isinstance(stored, ConcatenatedStack) else [stored]
    if all(isinstance(part, h5py.Dataset) for part in parts):
        return np.concatenate([unwritten(part, leading).ravel() for part in parts])
    return np.zeros(stack.shape[0], bool)


class ConcatenatedStack:
    """Several stacks, one after the other."""

    def __init__(self, parts: Sequence[Stack]) -> None:
        self.together = max(patterns_together(part) for part in parts)
        self.parts = parts
        self._starts = np.concatenate([[0], np.cumsum([part.shape[0] for part in parts])])
        self.shape = (int(self._starts[-1]), *parts[0].shape[1:])
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray:
        start, stop, _ = index[0].indices(self.shape[0])
        blocks = []
        for part, first in zip(self.parts, self._starts, strict=False):
            low, high = max(start - first, 0), min(stop - first, part.shape[0])
            if low < high:
                blocks.append(part[slice(low, high), *index[1:]])
        return np.concatenate(blocks).astype(self.dtype, copy=False)


class SelectedStack:
    """Some patterns of a stack, in increasing order."""

    def __init__(self, stack: Stack, rows: NDArray[np.intp]) -> None:
        self.stack, self.rows = stack, rows
        self.together = patterns_together(stack)
        self.shape = (len(rows), *stack.shape[1:])
        self.dtype = stack.dtype

    def __getitem__(self, index: tuple[slice, slice, slice]) -> NDArray:
        rows = self.rows[index[0]]
        first, last = int(rows[0]), int(rows[-1])
        if last - first >= 2 * len(rows):
            one = (self.stack[slice(int(row), int(row) + 1), index[1], index[2]] for row in rows)
            return np.concatenate(list(one))
        # With few gaps one contiguous read is faster: HDF5 reads scattered rows one by one.
        return self.stack[slice(first, last + 1), index[1], index[2]][rows - first]


class RasterStack:
    """A raster [slow, fast, rows, columns] as patterns [slow * fast, rows, columns]."""

    def __init__(self, raster: Stack) -> None:
        self.raster = raster
        self._fast = raster.shape[1]
        chunks = getattr(raster, "chunks", None) or (1, 1)
        self.together = int(chunks[0] * self._fast if chunks[0] > 1 else chunks[1])
        self.shape = (raster.shape[0] * raster.shape[1], *raster.shape[2:])
        self.dtype = raster.dtype

    def __getitem__(self, index: tuple[slice, slice, slice]) -> NDArray:
        start, stop, _ = index[0].indices(self.shape[0])
        first, last = start // self._fast, -(-stop // self._fast)
        block = self.raster[slice(first, last), slice(None), index[1], index[2]]
        flat = block.reshape(-1, *block.shape[2:])
        return flat[start - first * self._fast : stop - first * self._fast]
