"""Patterns without photons: a closed shutter, a lost beam, a frame that was never filled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.conversion.scaling import valid_values
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes

__all__ = ["dark_patterns", "kept_patterns", "refuse_dark"]

# Stacks up to this size are read to the end; of larger ones only a strip, or the sizes of their chunks.
_SMALL_BYTES = 2**24
_BLOCK_BYTES = 2**23
_STRIP = 16
# Patterns that are listed by number.
_NAMED = 8


def dark_patterns(frames: StoredFrames, min_photons: float | None, brightest_row: float) -> NDArray[np.bool_]:
    """True for each pattern without photons, or with fewer than `min_photons`, [n].

    A threshold needs all patterns. Without one, only patterns that may be empty are read; in large files of chunks that
    are not compressed, or hold several patterns, they are refused when they are read instead.

    `brightest_row`: row of the frames near the direct beam.
    """
    n = frames.stack.shape[0]
    dark, trusted = np.zeros(n, dtype=bool), frames.trusted
    candidates = np.arange(n) if min_photons is not None else _candidates(frames, int(brightest_row))
    for index in candidates.tolist():
        frame = frames.frame(index)
        valid = valid_values(frame, frames.where)
        broken = np.count_nonzero(~valid) > valid.size // 2
        frame = np.where(valid & trusted, frame, 0)
        if min_photons is None:
            dark[index] = not (broken or frame.any())
        else:
            counts = np.square(frame, dtype=np.float64) if frames.quantity == "amplitude" else frame
            dark[index] = np.sum(counts, dtype=np.float64) < min_photons
    return dark


def kept_patterns(
    left_out: NDArray[np.bool_], kind: str, where: str, log: Callable[[str], None]
) -> NDArray[np.intp]:
    """Numbers of the patterns that stay when others [n] are left out, which is logged.

    Raises InputError if none stays.
    """
    numbers = np.flatnonzero(left_out)
    if len(numbers) == len(left_out):
        raise InputError(f"{where}: all {len(numbers)} patterns are {kind}, expected some with photons")
    shown = ", ".join(map(str, numbers[:_NAMED])) + (", ..." if len(numbers) > _NAMED else "")
    log(f"patterns: {len(numbers)} of {len(left_out)} left out, {kind} (numbers {shown})")
    return np.flatnonzero(~left_out)


def refuse_dark(patterns: NDArray, where: str, first: int) -> None:
    """Refuse a pattern of [m, rows, columns] without photons; `first` is the index of the first of them.

    Raises InputError with the index of the pattern.
    """
    lit = patterns.any(axis=(1, 2))
    if not lit.all():
        raise InputError(
            f"{where}[{first + int(np.argmin(lit))}] holds no photons, expected some: --min-photons 1 leaves such "
            "patterns out"
        )


def _candidates(frames: StoredFrames, brightest_row: int) -> NDArray[np.intp]:
    """Patterns that may be empty, found at little cost."""
    stack = frames.stack
    n, height, width = stack.shape
    chunks = getattr(stack, "chunks", None)
    if (
        isinstance(stack, h5py.Dataset)
        and chunks
        and chunks[0] == 1
        and stack.id.get_create_plist().get_nfilters()
    ):
        return _small_chunks(stack)
    if math.prod(stack.shape) * stack.dtype.itemsize <= _SMALL_BYTES:
        rows = slice(0, height)
    elif chunks is None and not isinstance(stack, LazyAmplitudes) and not hasattr(stack, "together"):
        rows = slice(max(0, brightest_row - _STRIP // 2), brightest_row + _STRIP // 2)
    else:
        return np.empty(0, dtype=np.intp)
    step = max(1, _BLOCK_BYTES // (8 * len(range(height)[rows]) * width))
    empty = []
    for start in range(0, n, step):
        strip = np.asarray(stack[slice(start, min(n, start + step)), rows, slice(None)])
        lit = valid_values(strip, frames.where) & (strip != 0)
        empty.append(start + np.flatnonzero(~lit.any(axis=(1, 2))))
    return np.concatenate(empty)


def _small_chunks(dataset: h5py.Dataset) -> NDArray[np.intp]:
    """Patterns whose compressed chunks are all small: zeros compress to next to nothing."""
    sizes = np.zeros(dataset.shape[0], dtype=np.int64)

    def add(info: Any) -> None:
        sizes[info.chunk_offset[0]] += info.size

    dataset.id.chunk_iter(add)
    return np.flatnonzero(sizes < 0.5 * sizes.max())
