"""A network as TensorFlow itself runs it: eager, and through its own compilers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from train.tensorflow.network import KerasNetwork

__all__ = ["native_forms"]


def native_forms(
    network: KerasNetwork, example: NDArray[np.float32], threads: int | None = None
) -> dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]]:
    """Functions from amplitudes [B, C, N, N] to object parts, by name; ``eager`` first.

    Parameters
    ----------
    example
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
    return {
        "eager": lambda batch: model(tf.constant(batch), training=False).numpy(),
        "tf.function": lambda batch: graph(tf.constant(batch)).numpy(),
        "XLA": lambda batch: xla(tf.constant(batch)).numpy(),
    }
