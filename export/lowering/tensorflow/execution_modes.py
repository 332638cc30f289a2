"""A network as TensorFlow itself runs it: eager, and through its own compilers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptychonnx.train.tensorflow.network import KerasNetwork

__all__ = ["native_forms"]


def native_forms(
    network: KerasNetwork, examples: Sequence[NDArray[np.float32]], threads: int | None = None
) -> dict[str, Callable[..., NDArray[np.float32]]]:
    """Functions from the network's inputs to object parts, by name; ``eager`` first.

    Parameters
    ----------
    examples
        Not needed here.
    threads
        Inside an operator, of this process. TensorFlow takes it only before its first operation, so loading the
        network is too late: set ``TF_NUM_INTRAOP_THREADS`` instead.

    Returns
    -------
    Besides ``eager``, ``tf.function`` and ``XLA``. They compile when they are called first.
    """
    model = network.model
    graph = tf.function(lambda batch: model(batch, training=False))
    xla = tf.function(lambda batch: model(batch, training=False), jit_compile=True)

    def form(call: Callable[[Any], tf.Tensor]) -> Callable[..., NDArray[np.float32]]:
        def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            tensors = [tf.constant(each) for each in inputs]
            return call(tensors if len(tensors) > 1 else tensors[0]).numpy()

        return run

    eager = partial(model, training=False)
    return {"eager": form(eager), "tf.function": form(graph), "XLA": form(xla)}
