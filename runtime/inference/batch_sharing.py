"""A batch shared among threads: each takes some of its patterns through the whole network.

Onnxruntime itself shares every operator among its threads. They meet again behind each of hundreds of small operators,
and what one of them wrote the other reads next, out of another core's cache (docs/decisions/0011-cpu-runtime.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

__all__ = ["SharedRun", "cores", "is_worth_sharing"]

# With fewer patterns a thread, handing them over and starting each operator anew takes what is gained.
_FEWEST_PATTERNS = 4


class SharedRun:
    """Runs of one session, each on one thread and on a part of the batch, at the same time.

    Attributes
    ----------
    threads
        Number of parts.
    """

    def __init__(self, session: ort.InferenceSession, threads: int) -> None:
        """Start the threads.

        Parameters
        ----------
        session
            With one thread inside an operator, one output, and fixed sizes but for the batch, on the CPU.
        threads
            That run it, the caller's among them.
        """
        self.threads = threads
        self._session = session
        self._inputs = [each.name for each in session.get_inputs()]
        (self._output,) = session.get_outputs()
        self._others = ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="ptychonnx-run")

    def __call__(self, *inputs: NDArray) -> NDArray[np.float32]:
        """Output [batch, ...] of inputs [batch, ...] in the order of the graph, the batch being at least one for each
        thread; from any thread.
        """
        patterns = len(inputs[0])
        found = np.empty((patterns, *self._output.shape[1:]), dtype=np.float32)
        ends = patterns * np.arange(self.threads + 1) // self.threads
        own, *rest = (slice(*pair) for pair in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
        waiting = [self._others.submit(self._run, inputs, part, found) for part in rest]
        self._run(inputs, own, found)
        for each in waiting:
            each.result()
        return found

    def close(self) -> None:
        """End the threads, which the last reference to this object does too."""
        self._others.shutdown()

    def _run(self, inputs: Sequence[NDArray], part: slice, found: NDArray[np.float32]) -> None:
        binding, there = self._session.io_binding(), found[part]
        held = [np.ascontiguousarray(values[part]) for values in inputs]  # as long as the run
        for name, values in zip(self._inputs, held, strict=True):
            binding.bind_cpu_input(name, values)
        binding.bind_output(self._output.name, "cpu", 0, np.float32, there.shape, there.ctypes.data)
        self._session.run_with_iobinding(binding)


def is_worth_sharing(patterns: int, threads: int) -> bool:
    """Whether a batch of so many patterns runs faster shared than with all threads inside each operator."""
    return threads > 1 and patterns >= _FEWEST_PATTERNS * threads


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
