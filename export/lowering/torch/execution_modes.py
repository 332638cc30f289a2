"""A network as torch itself runs it: eager, and through its own compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptychonnx.export.lowering.torch.spectral import lower_spectral
from ptychonnx.train.torch.network import TorchNetwork

__all__ = ["native_forms"]


def native_forms(
    network: TorchNetwork, examples: Sequence[NDArray[np.float32]], threads: int | None = None
) -> dict[str, Callable[..., NDArray[np.float32]]]:
    """Functions from the network's inputs to object parts, by name; ``eager`` first.

    Parameters
    ----------
    examples
        A batch of every input, by which the sizes of Fourier layers are found.
    threads
        Of this process, from here on; torch's own choice if None.

    Returns
    -------
    Besides ``eager``, ``torch.compile`` of the network as it is, and of the network with its Fourier layers lowered to
    real matrix products. They compile when they are called first.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    lowered = lower_spectral(network.module, *(torch.from_numpy(each[:2]) for each in examples)).module

    def form(call: Any) -> Callable[..., NDArray[np.float32]]:
        def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.no_grad():
                return call(*map(torch.from_numpy, inputs)).numpy()

        return run

    return {
        "eager": form(network.module),
        "torch.compile": form(torch.compile(network.module)),
        "lowered, torch.compile": form(torch.compile(lowered)),
    }
