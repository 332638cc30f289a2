"""Execution modes of a network in TensorFlow: eager, and through its own compilers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptychonnx.train.tensorflow.network import KerasNetwork

__all__ = ["execution_modes"]


def execution_modes(
    network: KerasNetwork,
    examples: Sequence[NDArray[np.float32]],
    threads: int | None = None,
    device: str = "cpu",
) -> dict[str, Callable[..., NDArray[np.float32]]]:
    """Functions from the network's inputs to object parts, by name; ``eager`` first.

    They are ``eager``, ``tf.function`` and ``XLA``; compilation happens in the first call. The other arguments are
    those of the function for torch, and not used: TensorFlow takes the GPU that it finds, and accepts a number of
    threads only before the network is loaded (``TF_NUM_INTRAOP_THREADS``).
    """
    model = network.model
    graph = tf.function(lambda batch: model(batch, training=False))
    xla = tf.function(lambda batch: model(batch, training=False), jit_compile=True)

    def numpy_function(call: Callable[[Any], tf.Tensor]) -> Callable[..., NDArray[np.float32]]:
        def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            tensors = [tf.constant(array) for array in inputs]
            return call(tensors if len(tensors) > 1 else tensors[0]).numpy()

        return run

    eager = partial(model, training=False)
    modes = {"eager": eager, "tf.function": graph, "XLA": xla}
    return {name: numpy_function(call) for name, call in modes.items()}
