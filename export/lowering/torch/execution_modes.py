"""Execution modes of a network in torch: eager, and through its own compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptychonnx.export.lowering.torch.spectral import lower_spectral
from ptychonnx.train.torch.network import TorchNetwork

__all__ = ["execution_modes"]


def execution_modes(
    network: TorchNetwork,
    examples: Sequence[NDArray[np.float32]],
    threads: int | None = None,
    device: str = "cpu",
) -> dict[str, Callable[..., NDArray[np.float32]]]:
    """Functions from the network's inputs to object parts, by name; ``eager`` first.

    The others are ``torch.compile`` of the unchanged network, and of the network with its Fourier layers lowered to
    real matrix products, whose sizes follow from the examples. Compilation happens in the first call. Inputs and
    outputs are copied to the device and back. `threads` is the number of threads of this process from now on.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    lowered = lower_spectral(network.module, *(torch.from_numpy(example[:2]) for example in examples)).module

    for module in (network.module, lowered):
        module.to(device)

    def numpy_function(call: Any) -> Callable[..., NDArray[np.float32]]:
        def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.no_grad():
                return call(*(torch.from_numpy(array).to(device) for array in inputs)).cpu().numpy()

        return run

    return {
        "eager": numpy_function(network.module),
        "torch.compile": numpy_function(torch.compile(network.module)),
        "lowered, torch.compile": numpy_function(torch.compile(lowered)),
    }
