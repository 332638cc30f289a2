"""Background stages of a reconstruction: one thread prefetches patterns, another stitches finished patches.

Each stage holds a few blocks, so that memory does not grow with the scan. An exception in a stage is raised where the
caller next waits for that stage. Leaving the `with` block always ends the thread.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes

__all__ = ["BackgroundReader", "BackgroundWorker"]

# Blocks that are read ahead, and calls that may be pending.
_BLOCKS_AHEAD = 2
_PENDING_CALLS = 4
# Cache of patterns that several groups share.
_CACHE_BYTES = 2**25


class _Stage:
    """A thread that runs tasks in the order of their submission."""

    def __init__(self, name: str) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"ptychonnx-{name}")
        self._pending: deque[Future[Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the running task, cancel the others, and end the thread."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()


class BackgroundReader(_Stage):
    """Amplitudes that a thread reads ahead, in the order in which they will be requested.

    It replaces the amplitudes that it wraps. Patterns requested out of order are read at once, without affecting the
    order of the others. Only one thread may request patterns.

    `shape` and `dtype`: those of the amplitudes.
    """

    def __init__(self, amplitudes: LazyAmplitudes, groups: NDArray[np.intp]) -> None:
        """Start to read.

        `groups`: int [m, C], patterns of each group, in the order in which groups will be requested, in batches of any
        size.
        """
        super().__init__("read")
        self.shape, self.dtype = amplitudes.shape, amplitudes.dtype
        self._amplitudes, self._order = amplitudes, groups.reshape(-1)
        self._grouped = groups.shape[1] > 1
        self._cache: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._position = 0
        self._ready: NDArray[np.float32] = np.empty((0, *self.shape[1:]), np.float32)
        self._blocks = self._split()
        for _ in range(_BLOCKS_AHEAD):
            self._submit_next()

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self) -> NDArray:
        return np.asarray(self._amplitudes)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        if not isinstance(index, np.ndarray) or index.dtype.kind not in "iu":
            return self._amplitudes[index]
        rows = index.reshape(-1)
        if not np.array_equal(rows, self._order[self._position : self._position + len(rows)]):
            return self._amplitudes[index]
        self._position += len(rows)
        parts, missing = [], len(rows)
        while missing:
            if not len(self._ready):
                self._ready = self._pending.popleft().result()
                self._submit_next()
            part, self._ready = self._ready[:missing], self._ready[missing:]
            parts.append(part)
            missing -= len(part)
        patterns = parts[0] if len(parts) == 1 else np.concatenate([self._ready[:0], *parts])
        return patterns.reshape(*index.shape, *self.shape[1:])

    def _split(self) -> Iterator[NDArray[np.intp]]:
        step = self._amplitudes.block
        return (self._order[start : start + step] for start in range(0, len(self._order), step))

    def _submit_next(self) -> None:
        if (rows := next(self._blocks, None)) is not None:
            read = self._read_cached if self._grouped else self._amplitudes.__getitem__
            self._pending.append(self._worker.submit(read, rows))

    def _read_cached(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Read patterns of groups, most of which earlier groups contain too."""
        needed = np.unique(rows)
        new = np.array([row for row in needed.tolist() if row not in self._cache], dtype=np.intp)
        for row, pattern in zip(new.tolist(), self._amplitudes[new], strict=True):
            self._cache[row] = pattern.copy()
        patterns = np.stack([self._cache[row] for row in rows.tolist()])
        for row in needed.tolist():
            self._cache.move_to_end(row)
        while len(self._cache) > max(1, _CACHE_BYTES // patterns[0].nbytes):
            self._cache.popitem(last=False)
        return patterns


class BackgroundWorker(_Stage):
    """A function that a thread calls, a few calls behind the caller.

    `seconds`: total duration of the calls.
    """

    def __init__(self, function: Callable[..., None], name: str) -> None:
        super().__init__(name)
        self._function = function
        self.seconds = 0.0

    def submit(self, *arguments: Any) -> None:
        """Submit a call with these arguments; waits while too many are pending."""
        while self._pending and (len(self._pending) >= _PENDING_CALLS or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._worker.submit(self._timed, *arguments))

    def finish(self) -> None:
        """Wait until all calls are complete."""
        while self._pending:
            self._pending.popleft().result()

    def _timed(self, *arguments: Any) -> None:
        start = time.perf_counter()
        self._function(*arguments)
        self.seconds += time.perf_counter() - start
