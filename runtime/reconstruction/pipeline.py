"""Stages that overlap: patterns are read ahead of the network by one thread, patches merged behind it by another.

Either stage holds a few blocks, so that memory does not grow with the scan. An exception in a stage comes out, as it
is, where the caller waits for the stage next; leaving the `with` block ends its thread, whatever the reason.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes

__all__ = ["ReadAhead", "WorkBehind"]

# Blocks that are read and not asked for yet, and batches of patches that are not merged yet.
_BLOCKS_AHEAD = 2
_BATCHES_BEHIND = 4
# Patterns that are kept because groups share them.
_KEPT_BYTES = 2**25


class _Stage:
    """A thread that works off what is handed to it, in that order."""

    def __init__(self, name: str) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"ptychonnx-{name}")
        self._waiting: deque[Future[Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what the thread is at, drop the rest, and end it."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()


class ReadAhead(_Stage):
    """Amplitudes, in the order in which they will be asked for, read before that by a thread.

    To be given to a network in place of the amplitudes that it wraps. Patterns that are asked for out of turn are
    read at once, and the turn stays where it is. Not to be asked by several threads at the same time.

    Attributes
    ----------
    shape, dtype
        As of the amplitudes.
    """

    def __init__(self, amplitudes: LazyAmplitudes, groups: NDArray[np.intp]) -> None:
        """Begin to read.

        Parameters
        ----------
        groups
            int [m, C], patterns of each group; groups will be asked for in this order, in batches of any size.
        """
        super().__init__("read")
        self.shape, self.dtype = amplitudes.shape, amplitudes.dtype
        self._amplitudes, self._order = amplitudes, groups.reshape(-1)
        self._shared = groups.shape[1] > 1
        self._kept: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._turn = 0
        self._ready: NDArray[np.float32] = np.empty((0, *self.shape[1:]), np.float32)
        self._pieces = self._cut()
        for _ in range(_BLOCKS_AHEAD):
            self._read_next()

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self) -> NDArray:
        return np.asarray(self._amplitudes)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        if not isinstance(index, np.ndarray) or index.dtype.kind not in "iu":
            return self._amplitudes[index]
        wanted = index.reshape(-1)
        if not np.array_equal(wanted, self._order[self._turn : self._turn + len(wanted)]):
            return self._amplitudes[index]
        self._turn += len(wanted)
        parts, missing = [], len(wanted)
        while missing:
            if not len(self._ready):
                self._ready = self._waiting.popleft().result()
                self._read_next()
            part, self._ready = self._ready[:missing], self._ready[missing:]
            parts.append(part)
            missing -= len(part)
        patterns = parts[0] if len(parts) == 1 else np.concatenate([self._ready[:0], *parts])
        return patterns.reshape(*index.shape, *self.shape[1:])

    def _cut(self) -> Iterator[NDArray[np.intp]]:
        step = self._amplitudes.block
        return (self._order[start : start + step] for start in range(0, len(self._order), step))

    def _read_next(self) -> None:
        if (piece := next(self._pieces, None)) is not None:
            read = self._read_shared if self._shared else self._amplitudes.__getitem__
            self._waiting.append(self._worker.submit(read, piece))

    def _read_shared(self, piece: NDArray[np.intp]) -> NDArray[np.float32]:
        """Patterns of groups, most of which the groups before them had too."""
        wanted = np.unique(piece)
        new = np.array([row for row in wanted.tolist() if row not in self._kept], dtype=np.intp)
        for row, pattern in zip(new.tolist(), self._amplitudes[new], strict=True):
            self._kept[row] = pattern.copy()
        found = np.stack([self._kept[row] for row in piece.tolist()])
        for row in wanted.tolist():
            self._kept.move_to_end(row)
        while len(self._kept) > max(1, _KEPT_BYTES // found[0].nbytes):
            self._kept.popitem(last=False)
        return found


class WorkBehind(_Stage):
    """A function that a thread calls, a few calls behind who hands them over.

    Attributes
    ----------
    seconds
        Time that the calls took.
    """

    def __init__(self, work: Callable[..., None], name: str) -> None:
        super().__init__(name)
        self._work = work
        self.seconds = 0.0

    def hand(self, *arguments: Any) -> None:
        """Have the function called with these arguments; waits while too many calls are to be made."""
        while self._waiting and (len(self._waiting) >= _BATCHES_BEHIND or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._worker.submit(self._timed, *arguments))

    def finish(self) -> None:
        """Wait until all calls have been made."""
        while self._waiting:
            self._waiting.popleft().result()

    def _timed(self, *arguments: Any) -> None:
        start = time.perf_counter()
        self._work(*arguments)
        self.seconds += time.perf_counter() - start
