"""Measured amplitudes [n, N, N], in memory or still in their file, and the checks that each of them passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptychonnx.runtime.errors import InputError

__all__ = [
    "MOST_PHOTONS",
    "Amplitudes",
    "LazyAmplitudes",
    "MappedAmplitudes",
    "check_amplitudes",
    "photons",
    "repeated_patterns",
    "sample_of",
]

# In a pattern: NumPy draws no Poisson numbers above 2**63, and none is that bright.
MOST_PHOTONS = 1e15
# Size of the patterns whose statistics are computed at once, in bytes of float64.
_BLOCK_BYTES = 2**23


class Amplitudes(Protocol):
    """float32 [n, N, N]: a NumPy array, or `LazyAmplitudes`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, N, N)."""

    @property
    def dtype(self) -> np.dtype:
        """float32."""

    def __len__(self) -> int:
        """Number of patterns n."""

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Patterns by index, slice, or array of indices of any shape, as an array."""

    def __array__(self) -> NDArray:
        """All patterns, for `numpy.asarray`."""


class LazyAmplitudes:
    """Amplitudes that are read on access, and checked whenever they are read.

    Indexing works as for an array. The patterns that the first axis selects are read, consecutive ones together; the
    rest of the index is applied to them. Only the number of photons in each pattern is kept.

    * `shape`, `dtype`: (n, N, N), float32.
    * `block`: number of patterns that are best read together, starting at a multiple of it.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        shape: tuple[int, int, int],
        read: Callable[[int, int], NDArray[np.float32]],
        block: int,
        name: str,
        photons: NDArray[np.float64] | None = None,
    ) -> None:
        """Amplitudes of a file.

        * `shape`: (n, N, N).
        * `read`: returns the patterns from one index up to, not including, another as float32 [m, N, N]. It keeps the
          file open if necessary.
        * `block`: see the attribute; at least 1.
        * `name`: name of the patterns in messages.
        * `photons`: number of photons in each pattern [n] if known, NaN where not.
        """
        self.shape = shape
        self.block = max(1, min(block, shape[0]))
        self._read_range, self._name = read, name
        self._photons = np.full(shape[0], np.nan) if photons is None else photons

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return (
            f"<{self._name}: {self.shape[0]} patterns of {self.shape[1]} x {self.shape[2]} pixels in a file>"
        )

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        rows = np.arange(len(self))[first]
        patterns = self._patterns(rows.reshape(-1)).reshape(*rows.shape, *self.shape[1:])
        return patterns[(*(slice(None),) * rows.ndim, *rest)] if rest else patterns

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        if copy is False:
            raise ValueError("the patterns are in a file: an array of them is always a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All patterns in order, in blocks, each with the index of its first pattern."""
        for start in range(0, len(self), self.block):
            yield start, self._range(start, min(start + self.block, len(self)))

    def photons_read(self) -> NDArray[np.float64]:
        """Number of photons in each pattern, [n]; NaN for those that have not been read yet."""
        return self._photons.copy()

    def photons(self) -> NDArray[np.float64]:
        """Number of photons in each pattern, [n]; patterns that have not been read yet are read."""
        for start in range(0, len(self), self.block):
            stop = min(start + self.block, len(self))
            if np.isnan(self._photons[start:stop]).any():
                self._range(start, stop)
        return self._photons.copy()

    def _patterns(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        if not len(rows):
            return np.empty((0, *self.shape[1:]), np.float32)
        if len(rows) - 1 == rows[-1] - rows[0] and (np.diff(rows) == 1).all():
            return self._whole(int(rows[0]), int(rows[-1]) + 1)
        wanted, place = np.unique(rows, return_inverse=True)
        found = np.empty((len(wanted), *self.shape[1:]), np.float32)
        breaks = np.flatnonzero(np.diff(wanted) > 1) + 1
        for run in np.split(np.arange(len(wanted)), breaks):
            found[run[0] : run[-1] + 1] = self._whole(int(wanted[run[0]]), int(wanted[run[-1]]) + 1)
        return found if len(wanted) == len(rows) and (place == np.arange(len(rows))).all() else found[place]

    def _whole(self, start: int, stop: int) -> NDArray[np.float32]:
        """Consecutive patterns, read no more than a block at a time."""
        if stop - start <= self.block:
            return self._range(start, stop)
        found = np.empty((stop - start, *self.shape[1:]), np.float32)
        low = start
        while low < stop:
            high = min(stop, (low // self.block + 1) * self.block)
            found[low - start : high - start] = self._range(low, high)
            low = high
        return found

    def _range(self, start: int, stop: int) -> NDArray[np.float32]:
        patterns = self._read_range(start, stop)
        check_amplitudes(patterns, self._name, start)
        self._photons[start:stop] = photons(patterns)
        return patterns


class MappedAmplitudes:
    """Amplitudes that a function changes on access; it takes and returns patterns [..., N, N]."""

    dtype = np.dtype(np.float32)

    def __init__(
        self, amplitudes: Amplitudes, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> None:
        self.shape = amplitudes.shape
        self._amplitudes, self._function = amplitudes, function

    def __len__(self) -> int:
        return len(self._amplitudes)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        return np.ascontiguousarray(self._function(self._amplitudes[index]))

    def __array__(self) -> NDArray:
        return self[:]


def photons(amplitudes: Amplitudes) -> NDArray[np.float64]:
    """Number of photons in each pattern, [n]: the sum of the squares of its amplitudes."""
    if isinstance(amplitudes, LazyAmplitudes):
        return amplitudes.photons()
    step = max(1, _BLOCK_BYTES // (8 * amplitudes.shape[1] * amplitudes.shape[2]))
    blocks = (amplitudes[start : start + step] for start in range(0, len(amplitudes), step))
    return np.concatenate([np.sum(np.square(block, dtype=np.float64), axis=(1, 2)) for block in blocks])


def sample_of(n: int, most: int = 32) -> NDArray[np.intp]:
    """Indices of at most so many of n patterns, evenly spaced; 32 are enough to decide on a scale or a convention."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp))


def repeated_patterns(patterns: NDArray[np.float32], seen: set[bytes]) -> NDArray[np.bool_]:
    """True for each of the patterns [n, N, N] that equals an earlier one, or one whose hash `seen` has from before."""
    repeated = np.zeros(len(patterns), dtype=bool)
    for number, pattern in enumerate(patterns):
        digest = hashlib.blake2b(pattern.tobytes(), digest_size=16).digest()
        repeated[number] = digest in seen
        seen.add(digest)
    return repeated


def check_amplitudes(patterns: NDArray[np.float32], name: str, first: int = 0) -> None:
    """Refuse patterns [m, N, N] that are not amplitudes; `first` is the index of the first of them.

    Raises InputError on NaN, infinity, or negative values, with the index of the pattern.
    """
    # Both propagate NaN.
    lowest, highest = patterns.min(axis=(1, 2)), patterns.max(axis=(1, 2))
    bad = np.flatnonzero(~(np.isfinite(highest) & (lowest >= 0)))
    if not bad.size:
        return
    low, index = lowest[bad[0]], first + bad[0]
    if not (np.isfinite(low) and np.isfinite(highest[bad[0]])):
        raise InputError(f"{name}: diffraction[{index}] holds NaN or infinity, expected finite amplitudes")
    raise InputError(f"{name}: diffraction[{index}] holds {low:g}, expected amplitudes of at least 0")
