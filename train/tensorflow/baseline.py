"""`baseline`: encoder with an amplitude and a phase decoder, trained on known objects (after PtychoNN).

Cherukara et al., Applied Physics Letters 117, 044103 (2020). It sees the pattern alone and knows no physics.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.tensorflow.layers import (
    ExactLayer,
    ScaledPatterns,
    ToObjectParts,
    check_size,
    decoder,
    encoder,
)

__all__ = ["build"]

_MAX_AMPLITUDE = 1.5


@keras.saving.register_keras_serializable("ptychonnx")
class PolarToParts(ExactLayer):
    """Amplitude and phase heads [B, N, N, C] to real and imaginary part."""

    def call(self, heads: list[tf.Tensor]) -> list[tf.Tensor]:
        amplitude, phase = heads
        return [amplitude * tf.cos(phase), amplitude * tf.sin(phase)]


def build(config: NetworkConfig, constants: RetrievalConstants) -> keras.Model:
    """The network, from amplitudes [B, C, N, N] to object parts [B, N, N, C, 2].

    Raises InputError if N cannot be halved `blocks` times.
    """
    check_size(config)
    channels = config.channels
    diffraction = keras.Input((channels, config.n, config.n), name="diffraction")
    code = encoder(ScaledPatterns(constants.scale, name="scaled")(diffraction), config)
    heads = []
    for quantity, activation, limit in (("amplitude", "sigmoid", _MAX_AMPLITUDE), ("phase", "tanh", math.pi)):
        x = decoder(code, config, quantity)
        x = keras.layers.Conv2D(channels, 3, padding="same", activation=activation, name=f"{quantity}_head")(
            x
        )
        heads.append(keras.layers.Rescaling(limit, name=quantity)(x))
    return keras.Model(
        diffraction, ToObjectParts(name="object")(PolarToParts(name="parts")(heads)), name="baseline"
    )
