"""Runs of a session of onnxruntime without buffers of its own; large batches are shared among threads of the CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.inference.data_parallel import DataParallelRun, is_worth_splitting
from ptychonnx.runtime.inference.onnxruntime_session import CPU, session_options
from ptychonnx.runtime.inference.predictor import Beam

__all__ = ["SessionRun"]


class SessionRun:
    """Runs batches in a session."""

    def __init__(self, path: Path, session: ort.InferenceSession, contract: Contract, threads: int) -> None:
        """Wrap a session; `threads` share a batch, which is for the CPU only."""
        self._path, self._session, self._contract, self._threads = path, session, contract, threads
        self._parallel: DataParallelRun | None = None
        self._loading = threading.Lock()

    def __call__(self, *inputs: NDArray, beam: Beam = MappingProxyType({})) -> NDArray[np.float32]:
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
