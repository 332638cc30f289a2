"""`cnn`: convolutional encoder with one decoder for each part of the object, trained on physics."""

from __future__ import annotations

from functools import partial

import keras

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.tensorflow.layers import Features, ToObject, check_size, decoder, encoder, network_inputs

__all__ = ["build"]


def build(config: NetworkConfig, constants: RetrievalConstants) -> keras.Model:
    """The network, from amplitudes [B, C, N, N] to object parts [B, N, N, C, 2].

    Raises InputError if N cannot be halved `blocks` times.
    """
    check_size(config)
    inputs = network_inputs(config)
    features = Features(constants, name="features")(inputs)
    code = encoder(features, config)
    convolution = partial(keras.layers.Conv2D, kernel_size=3, padding="same")
    corrections = []
    for part in ("real", "imaginary"):
        # What a convolution of both, concatenated, would be; processors compute channels in blocks, and none is lost.
        decoded = convolution(config.width, name=f"{part}_decoded")(decoder(code, config, part))
        skipped = convolution(config.width, use_bias=False, name=f"{part}_skip")(features)
        detail = keras.layers.Activation("relu")(keras.layers.Add()([decoded, skipped]))
        detail = convolution(config.width, activation="relu", name=f"{part}_detail")(detail)
        correction = convolution(config.channels, kernel_initializer="zeros", name=part)
        corrections.append(correction(detail))
    return keras.Model(inputs, ToObject(name="object")(corrections, features), name="cnn")
