"""`unet`: convolutional encoder and decoder, joined at every size (Ronneberger et al., MICCAI 2015)."""

from __future__ import annotations

import keras

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.tensorflow.layers import Features, ToObject, check_size, convolutions, network_inputs

__all__ = ["build"]


def build(config: NetworkConfig, constants: RetrievalConstants) -> keras.Model:
    """The network, from amplitudes [B, C, N, N] to object parts [B, N, N, C, 2].

    Convolutions are padded, so that input and output have one size; the decoder doubles the size by repetition and a
    convolution, which leaves no checkerboard.

    Raises InputError if N cannot be halved `blocks` times.
    """
    check_size(config)
    inputs = network_inputs(config)
    features = Features(constants, name="features")(inputs)
    x, skips = features, []
    for level in range(config.blocks):
        x = convolutions(x, config.width * 2**level, f"encoder{level}")
        skips.append(x)
        x = keras.layers.MaxPooling2D(2, name=f"encoder{level}_pool")(x)
    x = convolutions(x, config.width * 2**config.blocks, "bottom")
    for level in reversed(range(config.blocks)):
        width = config.width * 2**level
        x = keras.layers.UpSampling2D(2, name=f"decoder{level}_up")(x)
        x = keras.layers.Conv2D(width, 2, padding="same", activation="relu", name=f"decoder{level}_narrow")(x)
        x = keras.layers.Concatenate(name=f"decoder{level}_skip")([skips[level], x])
        x = convolutions(x, width, f"decoder{level}")
    corrections = [
        keras.layers.Conv2D(config.channels, 1, kernel_initializer="zeros", name=part)(x)
        for part in ("real", "imaginary")
    ]
    return keras.Model(inputs, ToObject(name="object")(corrections, features), name="unet")
