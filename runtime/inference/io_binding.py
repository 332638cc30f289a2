"""Runs through preallocated device buffers, for execution providers with memory of their own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.predictor import NO_BEAM, Beam

__all__ = ["BoundRun", "check_capture"]

_logger = logging.getLogger(__name__)

# Buffers are kept for two batch sizes: the one in use, and that of the last, smaller batch.
_BUFFERED_SIZES = 2


class BoundRun:
    """Runs a session through input and output buffers on a device, which all batches of one size share.

    After the first runs nothing is allocated on the device and addresses stay fixed, as the replay of a CUDA graph
    requires. With two sets of buffers, two threads may run at once: one copies while the kernels of the other run.
    """

    def __init__(
        self, session: ort.InferenceSession, contract: Contract, device: str, number: int = 0, sets: int = 1
    ) -> None:
        """Bind to a session.

        * `device`, `number`: ``cuda`` or ``cpu``, as in `onnxruntime.OrtValue`, and the number of the device.
        * `sets`: number of sets of buffers, and of batches that run at the same time. A CUDA graph has one.
        """
        self._session = session
        self._contract = contract
        self._device = device, number
        self._pinned = _pinned_memory(session, device, number) if device != "cpu" else None
        self._sets: SimpleQueue[dict[tuple[int, bool], _Buffers]] = SimpleQueue()
        for _ in range(sets):
            self._sets.put({})

    def __call__(self, *inputs: NDArray, beam: Beam = NO_BEAM) -> NDArray[np.float32]:
        """Run one batch of the contract's inputs; may be called from any thread.

        `beam`: inputs without a batch, by name, which replace their defaults.
        Returns float32 [batch, N, N, C, 2]: a copy, which later runs do not overwrite.
        """
        sizes = self._sets.get()
        try:
            buffers = self._buffers_for(sizes, len(inputs[0]), bool(beam))
            for buffer, values in zip(buffers.inputs, inputs, strict=True):
                buffer.write(values)
            # `bind_cpu_input` knows no inputs with defaults. The values must live until the run ends.
            shared = {name: ort.OrtValue.ortvalue_from_numpy(values) for name, values in beam.items()}
            for name, value in shared.items():
                buffers.binding.bind_ortvalue_input(name, value)
            self._session.run_with_iobinding(buffers.binding)
            return buffers.output.read()
        except Exception:
            sizes.clear()  # so that a smaller batch has the memory
            raise
        finally:
            self._sets.put(sizes)

    def repeat(self, batch: int) -> None:
        """Run again on the inputs of the last batch of this size, which are still on the device: nothing is copied."""
        sizes = self._sets.get()
        try:
            self._session.run_with_iobinding(self._buffers_for(sizes, batch, False).binding)
        finally:
            self._sets.put(sizes)

    def _buffers_for(self, sizes: dict[tuple[int, bool], _Buffers], batch: int, with_beam: bool) -> _Buffers:
        # A binding cannot forget an input: runs with the default beam have one of their own.
        key = batch, with_beam
        if key in sizes:
            return sizes[key]
        if len(sizes) == _BUFFERED_SIZES:
            del sizes[next(iter(sizes))]
        n, channels = self._contract.n, self._contract.channels
        binding = self._session.io_binding()
        inputs = []
        for tensor in self._contract.inputs:
            inputs.append(_Buffer([batch, *tensor.shape], tensor.dtype, *self._device, self._pinned))
            binding.bind_ortvalue_input(tensor.name, inputs[-1].value)
        output = _Buffer([batch, n, n, channels, 2], "float32", *self._device, self._pinned)
        binding.bind_ortvalue_output(self._contract.output.name, output.value)
        sizes[key] = _Buffers(binding, inputs, output)
        return sizes[key]


class _Buffer:
    """An array on a device, with a copy in pinned memory on its way if the provider has such memory."""

    def __init__(self, shape: list[int], dtype: str, device: str, number: int, pinned: Any) -> None:
        create = ort.OrtValue.ortvalue_from_shape_and_type
        kind = np.dtype(dtype).type
        self.value = create(shape, kind, device, number)
        self._on_cpu = device == "cpu"
        self._host = None if pinned is None else create(shape, kind, memory_info=pinned)

    def write(self, values: NDArray) -> None:
        """Copy an array to the device."""
        if self._host is None:
            self.value.update_inplace(np.ascontiguousarray(values))
            return
        np.copyto(self._host.numpy(), values)
        ort.copy_tensors([self._host], [self.value])

    def read(self) -> NDArray[np.float32]:
        """A copy of the array from the device."""
        if self._host is not None:
            ort.copy_tensors([self.value], [self._host])
            return self._host.numpy().copy()
        # On the CPU `numpy()` is a view of the buffer, which the next run overwrites.
        return self.value.numpy().copy() if self._on_cpu else self.value.numpy()


@dataclass(frozen=True)
class _Buffers:
    """The buffers for batches of one size, bound to the session."""

    binding: ort.IOBinding
    inputs: list[_Buffer]
    output: _Buffer


def _pinned_memory(session: ort.InferenceSession, name: str, number: int) -> Any:
    """Pinned memory of the host that the provider of a session allocates and copies from; None if there is none."""
    try:
        for device in ort.get_ep_devices():
            memory = device.memory_info(ort.OrtDeviceMemoryType.HOST_ACCESSIBLE)
            if device.ep_name == session.get_providers()[0] and memory is not None:
                create = ort.OrtValue.ortvalue_from_shape_and_type
                host, other = (
                    create([4], np.float32, memory_info=memory),
                    create([4], np.float32, name, number),
                )
                # Writes must reach the memory itself, not a copy, and arrive on the device.
                host.numpy()[:] = 1
                ort.copy_tensors([host], [other])
                host.numpy()[:] = 0
                ort.copy_tensors([other], [host])
                return memory if host.numpy().sum() == 4 else None
    except Exception as error:  # onnxruntime raises a dozen types of its own
        _logger.debug("no pinned memory: %s", error)
    return None


def check_capture(contract: Contract, name: str, placement: Mapping[str, Counter[str]]) -> None:
    """Refuse a network that cannot be captured as a CUDA graph.

    Raises InputError if the batch is not fixed, or an operator runs outside the CUDA provider.

    `placement`: operators by execution provider, see `ptychonnx.runtime.inference.Session.placement`.
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
