"""Runs of a session: whole, or divided among threads of the CPU, each of which takes its part through the network.

By default onnxruntime splits every operator among its threads. They synchronise after each of hundreds of small
operators, and each reads from the cache of another core what the other has just written
(docs/decisions/0011-cpu-runtime.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.inference.onnxruntime_session import CPU, session_options
from ptychonnx.runtime.inference.predictor import NO_BEAM, Beam

__all__ = ["DataParallelRun", "SessionRun", "SharedRun", "is_worth_splitting"]

# With fewer patterns per thread, the cost of handing them over exceeds the gain.
_MIN_PATTERNS_PER_THREAD = 4


class DataParallelRun:
    """Runs one session on several threads at once, each on a part of the batch.

    `threads`: number of parts.
    """

    def __init__(self, session: ort.InferenceSession, threads: int) -> None:
        """Start the threads.

        * `session`: on the CPU, with one thread per operator, one output, and sizes that are fixed except for the
          batch.
        * `threads`: number of threads, including the caller's.
        """
        self.threads = threads
        self._session = session
        self._inputs = [tensor.name for tensor in session.get_inputs()]
        (self._output,) = session.get_outputs()
        self._workers = ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="ptychonnx-run")

    def __call__(self, *inputs: NDArray, beam: Beam = NO_BEAM) -> NDArray[np.float32]:
        """Run one batch of at least `threads` groups; may be called from any thread.

        * `inputs`: arrays [batch, ...] in the order of the graph's inputs.
        * `beam`: inputs without a batch, by name, which replace their defaults.

        Returns float32 [batch, ...].
        """
        batch = len(inputs[0])
        output = np.empty((batch, *self._output.shape[1:]), dtype=np.float32)
        ends = batch * np.arange(self.threads + 1) // self.threads
        own, *others = (slice(*pair) for pair in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
        futures = [self._workers.submit(self._run, inputs, part, output, beam) for part in others]
        self._run(inputs, own, output, beam)
        for future in futures:
            future.result()
        return output

    def close(self) -> None:
        """End the threads. Deleting the last reference to this object ends them too."""
        self._workers.shutdown()

    def _run(self, inputs: Sequence[NDArray], part: slice, output: NDArray[np.float32], beam: Beam) -> None:
        binding, target = self._session.io_binding(), output[part]
        arrays = [np.ascontiguousarray(values[part]) for values in inputs]  # must live until the run ends
        for name, array in zip(self._inputs, arrays, strict=True):
            binding.bind_cpu_input(name, array)
        # `bind_cpu_input` knows no inputs with defaults.
        shared = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in beam.items()}
        for name, value in shared.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(self._output.name, "cpu", 0, np.float32, target.shape, target.ctypes.data)
        self._session.run_with_iobinding(binding)


class SessionRun:
    """Runs batches in a session."""

    def __init__(self, path: Path, session: ort.InferenceSession, contract: Contract, threads: int) -> None:
        """Wrap a session; `threads` share a batch, which is for the CPU only."""
        self._path, self._session, self._contract, self._threads = path, session, contract, threads
        self._parallel: DataParallelRun | None = None
        self._loading = threading.Lock()

    def __call__(self, *inputs: NDArray, beam: Beam = NO_BEAM) -> NDArray[np.float32]:
        """Run one batch of the contract's inputs; may be called from any thread."""
        if self._contract.batch is None and is_worth_splitting(len(inputs[0]), self._threads):
            return self._data_parallel()(*inputs, beam=beam)
        names = (tensor.name for tensor in self._contract.inputs)
        feed = dict(zip(names, map(np.ascontiguousarray, inputs), strict=True)) | dict(beam)
        (output,) = self._session.run([self._contract.output.name], feed)
        return output

    def _data_parallel(self) -> DataParallelRun:
        """Load the artifact a second time, with one thread per operator, when it is first needed."""
        with self._loading:
            if self._parallel is None:
                session = ort.InferenceSession(str(self._path), session_options(1), providers=[CPU])
                self._parallel = DataParallelRun(session, self._threads)
            return self._parallel

    def close(self) -> None:
        """End the threads that split batches."""
        with self._loading:
            if self._parallel is not None:
                self._parallel.close()
                self._parallel = None


class SharedRun:
    """Divides each batch among several devices, which run at the same time."""

    def __init__(self, runs: Sequence[Callable[..., NDArray[np.float32]]]) -> None:
        """Start a thread for each device; `runs` are functions of the inputs and the beam, one for each."""
        self._runs = runs
        self._workers = ThreadPoolExecutor(len(runs), thread_name_prefix="ptychonnx-device")

    def __call__(self, *inputs: NDArray, beam: Beam = NO_BEAM) -> NDArray[np.float32]:
        """Run one batch [batch, ...]; fewer patterns than devices run on the first."""
        count = len(self._runs)
        if len(inputs[0]) < count:
            return self._runs[0](*inputs, beam=beam)
        parts = zip(*(np.array_split(array, count) for array in inputs), strict=True)
        futures = [
            self._workers.submit(run, *part, beam=beam) for run, part in zip(self._runs, parts, strict=True)
        ]
        return np.concatenate([future.result() for future in futures])


def is_worth_splitting(batch: int, threads: int) -> bool:
    """Whether a batch runs faster split among threads than with all threads inside each operator."""
    return threads > 1 and batch >= _MIN_PATTERNS_PER_THREAD * threads
