"""Runs that outlive a lack of memory, by smaller batches, and the loss of a device, on the CPU."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import DeviceError, first_line
from ptychonnx.runtime.inference.predictor import NO_BEAM, Beam

__all__ = ["ResilientRun", "Run"]

# From the inputs of a batch, and `beam`, to its output.
Run = Callable[..., NDArray[np.float32]]

_logger = logging.getLogger(__name__)
_OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate memory|alloc_failed|bad_?alloc", re.IGNORECASE)


class ResilientRun:
    """Runs batches; both changes are logged as warnings, and last.

    `largest`: largest batch that the memory was found to hold; None if every batch so far fitted.
    """

    def __init__(
        self, name: str, provider: str, run: Run, any_batch: bool, on_cpu: Callable[[], Run] | None
    ) -> None:
        """Wrap a run.

        * `name`, `provider`: for messages.
        * `any_batch`: whether a batch may be divided.
        * `on_cpu`: returns the run that takes over if the provider fails after it had worked; None on the CPU.
        """
        self._name, self._provider = name, provider
        self._run, self._any_batch, self._on_cpu = run, any_batch, on_cpu
        self.largest: int | None = None
        self._has_worked = False
        self._lock = threading.Lock()

    def __call__(self, *inputs: NDArray, beam: Beam = NO_BEAM) -> NDArray[np.float32]:
        """Run one batch; may be called from any thread.

        Raises DeviceError if the provider fails in its first batch, or if the CPU fails.
        """
        count, run = len(inputs[0]), self._run
        if (most := self.largest) is not None and count > most:
            parts = ([array[start : start + most] for array in inputs] for start in range(0, count, most))
            return np.concatenate([self(*part, beam=beam) for part in parts])
        try:
            output = run(*inputs, beam=beam)
        except Exception as error:  # engines raise a dozen types of their own
            if not self._change(run, count, error):
                raise DeviceError(
                    f"{self._name}: failed on {self._provider} ({first_line(error)})"
                ) from error
            return self(*inputs, beam=beam)
        self._has_worked = True
        return output

    def _change(self, run: Run, count: int, error: Exception) -> bool:
        """Run smaller batches, or on the CPU, from now on; whether that may help."""
        with self._lock:
            if self.largest is not None and self.largest < count:
                return True  # another thread was here first
            if self._run is not run:
                return True
            if _is_out_of_memory(error) and count > 1 and self._any_batch:
                self.largest = count // 2
                _logger.warning(
                    "%s: %s has too little memory for a batch of %d, going on with %d",
                    *(self._name, self._provider, count, self.largest),
                )
                return True
            if self._on_cpu is None or not self._has_worked:
                return False
            _logger.warning(
                "%s: %s failed in the middle (%s), going on with the CPU",
                *(self._name, self._provider, first_line(error)),
            )
            self._run, self._on_cpu = self._on_cpu(), None
            self._provider = f"the CPU, after {self._provider}"
            return True


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))
