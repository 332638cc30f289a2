"""Runs through preallocated device buffers, for execution providers with memory of their own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.predictor import Beam

__all__ = ["BoundRun", "check_capture"]

# Buffers are kept for two batch sizes: the one in use, and that of the last, smaller batch.
_BUFFERED_SIZES = 2


class BoundRun:
    """Runs a session through input and output buffers on a device, which all batches of one size share.

    After the first run nothing is allocated on the device and addresses stay fixed, as the replay of a CUDA graph
    requires. Copies start from and end in pageable memory: onnxruntime's Python API has no pinned memory for its CUDA
    provider.
    """

    def __init__(self, session: ort.InferenceSession, contract: Contract, device: str) -> None:
        """Bind to a session; `device` is ``cuda`` or ``cpu``, as in `onnxruntime.OrtValue`."""
        self._session = session
        self._contract = contract
        self._device = device
        self._buffers: dict[tuple[int, bool], tuple[ort.IOBinding, list[ort.OrtValue], ort.OrtValue]] = {}
        self._lock = threading.Lock()

    def __call__(self, *inputs: NDArray, beam: Beam = MappingProxyType({})) -> NDArray[np.float32]:
        """Run one batch of the contract's inputs; may be called from any thread.

        Parameters
        ----------
        beam
            Inputs without a batch, by name, which replace their defaults.

        Returns
        -------
        float32 [batch, N, N, C, 2]
            A copy, which later runs do not overwrite.
        """
        with self._lock:
            binding, input_buffers, output_buffer = self._buffers_for(len(inputs[0]), bool(beam))
            for buffer, values in zip(input_buffers, inputs, strict=True):
                buffer.update_inplace(np.ascontiguousarray(values))
            # `bind_cpu_input` knows no inputs with defaults. The values must live until the run ends.
            shared = {name: ort.OrtValue.ortvalue_from_numpy(values) for name, values in beam.items()}
            for name, value in shared.items():
                binding.bind_ortvalue_input(name, value)
            self._session.run_with_iobinding(binding)
            # On the CPU `numpy()` is a view of the buffer, which the next run overwrites.
            output = output_buffer.numpy()
            return output.copy() if self._device == "cpu" else output

    def _buffers_for(
        self, batch: int, with_beam: bool
    ) -> tuple[ort.IOBinding, list[ort.OrtValue], ort.OrtValue]:
        # A binding cannot forget an input: runs with the default beam have one of their own.
        key = batch, with_beam
        if key in self._buffers:
            return self._buffers[key]
        if len(self._buffers) == _BUFFERED_SIZES:
            del self._buffers[next(iter(self._buffers))]
        n, channels = self._contract.n, self._contract.channels
        create = ort.OrtValue.ortvalue_from_shape_and_type
        input_buffers = [
            create([batch, *tensor.shape], np.dtype(tensor.dtype).type, self._device)
            for tensor in self._contract.inputs
        ]
        output_buffer = create([batch, n, n, channels, 2], np.float32, self._device)
        binding = self._session.io_binding()
        for tensor, buffer in zip(self._contract.inputs, input_buffers, strict=True):
            binding.bind_ortvalue_input(tensor.name, buffer)
        binding.bind_ortvalue_output(self._contract.output.name, output_buffer)
        self._buffers[key] = binding, input_buffers, output_buffer
        return self._buffers[key]


def check_capture(contract: Contract, name: str, placement: Mapping[str, Counter[str]]) -> None:
    """Refuse a network that cannot be captured as a CUDA graph.

    Parameters
    ----------
    placement
        Operators by execution provider, see `ptychonnx.runtime.inference.Session.placement`.

    Raises
    ------
    InputError
        If the batch is not fixed, or an operator runs outside the CUDA provider.
    """
    if contract.batch is None:
        raise InputError(
            f"{name}: takes any batch, a CUDA graph needs one: export it with --batch N, or use --provider cuda"
        )
    elsewhere = [
        f"{', '.join(sorted(operators))} on {provider}"
        for provider, operators in placement.items()
        if provider != "CUDAExecutionProvider"
    ]
    if elsewhere:
        raise InputError(
            f"{name}: a CUDA graph needs every operator on the CUDA provider, found {'; '.join(elsewhere)}"
        )
