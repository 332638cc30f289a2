"""Runs of a session through buffers that stay where they are, for providers with memory of their own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError

__all__ = ["BoundRun", "check_capture"]

# Buffers of so many batch sizes are kept: the one in use, and that of the last, smaller batch.
_KEPT = 2


class BoundRun:
    """Input and output buffers on a device, filled, run and read again for every batch of one size.

    Nothing is allocated on the device after the first run, and addresses never change, which the replay of a CUDA
    graph relies on. Copies go from and to ordinary memory: onnxruntime's Python has no pinned memory for its CUDA
    provider.
    """

    def __init__(self, session: ort.InferenceSession, contract: Contract, device: str) -> None:
        """Prepare for a session.

        Parameters
        ----------
        device
            ``cuda`` or ``cpu``, as `onnxruntime.OrtValue` names it.
        """
        self._session = session
        self._contract = contract
        self._device = device
        self._buffers: dict[int, tuple[ort.IOBinding, list[ort.OrtValue], ort.OrtValue]] = {}
        self._lock = threading.Lock()

    def __call__(self, *inputs: NDArray) -> NDArray[np.float32]:
        """Output [batch, N, N, C, 2] of the contract's inputs, in memory of its own; from any thread."""
        with self._lock:
            binding, given, taken = self._bound(len(inputs[0]))
            for buffer, values in zip(given, inputs, strict=True):
                buffer.update_inplace(np.ascontiguousarray(values))
            self._session.run_with_iobinding(binding)
            # On the CPU `numpy()` shows the buffer itself, which the next run overwrites.
            parts = taken.numpy()
            return parts.copy() if self._device == "cpu" else parts

    def _bound(self, batch: int) -> tuple[ort.IOBinding, list[ort.OrtValue], ort.OrtValue]:
        if batch in self._buffers:
            return self._buffers[batch]
        if len(self._buffers) == _KEPT:
            del self._buffers[next(iter(self._buffers))]
        n, channels = self._contract.n, self._contract.channels
        create = ort.OrtValue.ortvalue_from_shape_and_type
        given = [
            create([batch, *each.shape], np.dtype(each.dtype).type, self._device)
            for each in self._contract.inputs
        ]
        taken = create([batch, n, n, channels, 2], np.float32, self._device)
        binding = self._session.io_binding()
        for tensor, buffer in zip(self._contract.inputs, given, strict=True):
            binding.bind_ortvalue_input(tensor.name, buffer)
        binding.bind_ortvalue_output(self._contract.output.name, taken)
        self._buffers[batch] = binding, given, taken
        return self._buffers[batch]


def check_capture(contract: Contract, name: str, placement: Mapping[str, Counter[str]]) -> None:
    """Refuse a network that cannot be captured as a CUDA graph.

    Parameters
    ----------
    placement
        Operators by the provider that runs them, see `ptychonnx.runtime.inference.session.Session.placement`.

    Raises
    ------
    InputError
        If the batch is not fixed, or an operator would run anywhere but on the CUDA provider.
    """
    if contract.batch is None:
        raise InputError(
            f"{name}: takes any batch, a CUDA graph needs one: export it with --batch N, or use --provider cuda"
        )
    elsewhere = {
        provider: operators
        for provider, operators in placement.items()
        if provider != "CUDAExecutionProvider"
    }
    if elsewhere:
        found = "; ".join(
            f"{', '.join(sorted(operators))} on {provider}" for provider, operators in elsewhere.items()
        )
        raise InputError(f"{name}: a CUDA graph needs every operator on the CUDA provider, found {found}")
