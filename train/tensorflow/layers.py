"""Building blocks of the TensorFlow architectures. Channels come last inside, the convention of Keras."""

from __future__ import annotations

from typing import TypeAlias

import keras
import tensorflow as tf

from ptychonnx.runtime.errors import InputError
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import AMPLITUDE_GAIN, CONTRAST_GAIN, RetrievalConstants
from ptychonnx.train.tensorflow.beam import beam_of_call
from ptychonnx.train.tensorflow.retrieval import Retrieval

__all__ = [
    "ExactLayer",
    "Features",
    "Refinement",
    "ScaledPatterns",
    "ToObject",
    "ToObjectParts",
    "check_size",
    "convolutions",
    "decoder",
    "encoder",
    "network_inputs",
    "refined",
]


Inputs: TypeAlias = "tf.Tensor | list[tf.Tensor]"


class ExactLayer(keras.layers.Layer):
    """A layer that computes in float32 also where the convolutions are trained in a lower precision."""

    def __init__(self, **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})


@keras.saving.register_keras_serializable("ptychonnx")
class Features(ExactLayer):
    """Features [B, N, N, 3 C + 1] of the inputs of a network.

    Real and imaginary part of the retrieved object (see `initial_retrieval`) minus an empty one, logarithm of the
    scaled amplitude, and the amplitude of the probe, which marks the illuminated pixels.
    """

    def __init__(self, constants: RetrievalConstants, **options: object) -> None:
        super().__init__(trainable=False, **options)
        self.steps = constants.steps
        self.retrieval = Retrieval(constants)

    def call(self, inputs: Inputs) -> tf.Tensor:
        diffraction, offsets = _split(inputs)
        beam = beam_of_call() or self.retrieval.beam
        amplitude = diffraction * beam.scale
        retrieved = self.retrieval(amplitude, self.steps, offsets, beam=beam)
        images = (retrieved[:, :, :, 0], retrieved[:, :, :, 1], amplitude)
        real, imaginary, amplitude = (tf.transpose(image, [0, 2, 3, 1]) for image in images)
        features = [
            (real - 1) * CONTRAST_GAIN,
            imaginary * CONTRAST_GAIN,
            tf.math.log1p(amplitude) * AMPLITUDE_GAIN,
            amplitude[..., :1] * 0 + beam.light[..., None],
        ]
        return tf.concat(features, axis=-1)


@keras.saving.register_keras_serializable("ptychonnx")
class ScaledPatterns(ExactLayer):
    """Measured amplitudes [B, C, N, N] to scaled amplitudes [B, N, N, C]."""

    def __init__(self, scale: float, **options: object) -> None:
        super().__init__(trainable=False, **options)
        self.scale = scale

    def call(self, diffraction: tf.Tensor) -> tf.Tensor:
        return tf.transpose(diffraction * (self.scale * AMPLITUDE_GAIN), [0, 2, 3, 1])


@keras.saving.register_keras_serializable("ptychonnx")
class Refinement(ExactLayer):
    """The final retrieval steps, fewer in training: object parts [B, N, N, C, 2] and network inputs to better parts."""

    def __init__(self, constants: RetrievalConstants, **options: object) -> None:
        super().__init__(trainable=False, **options)
        self.final_steps, self.training_steps = constants.final_steps, constants.training_steps
        self.retrieval = Retrieval(constants)

    def call(self, parts: tf.Tensor, inputs: Inputs, training: bool = False) -> tf.Tensor:
        diffraction, offsets = _split(inputs)
        steps = self.training_steps if training else self.final_steps
        images = tf.transpose(parts, [0, 3, 1, 4, 2])
        beam = beam_of_call() or self.retrieval.beam
        better = self.retrieval(diffraction * beam.scale, steps, offsets, images, beam)
        return tf.transpose(better, [0, 2, 4, 1, 3])


@keras.saving.register_keras_serializable("ptychonnx")
class ToObject(ExactLayer):
    """Corrections of real and imaginary part, 2 x [B, N, N, C], and features, to the object parts [B, N, N, C, 2]."""

    def call(self, corrections: list[tf.Tensor], features: tf.Tensor) -> tf.Tensor:
        channels = corrections[0].shape[-1]
        real = features[..., :channels] + corrections[0]
        imaginary = features[..., channels : 2 * channels] + corrections[1]
        return tf.stack([1 + real / CONTRAST_GAIN, imaginary / CONTRAST_GAIN], axis=-1)


@keras.saving.register_keras_serializable("ptychonnx")
class ToObjectParts(ExactLayer):
    """Two heads [B, N, N, C], real and imaginary part, to one output [B, N, N, C, 2]."""

    def call(self, heads: list[tf.Tensor]) -> tf.Tensor:
        return tf.stack(heads, axis=-1)


def convolutions(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions, each followed by a ReLU."""
    for number in (1, 2):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=f"{name}_conv{number}")(x)
    return x


def encoder(x: keras.KerasTensor, config: NetworkConfig) -> keras.KerasTensor:
    """Levels of two convolutions and a 2x2 maximum; the width doubles from each level to the next."""
    for level in range(config.blocks):
        x = convolutions(x, config.width * 2**level, f"encoder{level}")
        x = keras.layers.MaxPooling2D(2, name=f"encoder{level}_pool")(x)
    return x


def decoder(x: keras.KerasTensor, config: NetworkConfig, name: str) -> keras.KerasTensor:
    """Levels of two convolutions and a doubling of the size; the mirror image of the encoder."""
    for level in reversed(range(config.blocks)):
        x = convolutions(x, config.width * 2**level, f"{name}{level}")
        x = keras.layers.UpSampling2D(2, name=f"{name}{level}_up")(x)
    return keras.layers.Conv2D(config.width, 3, padding="same", activation="relu", name=f"{name}_last")(x)


def refined(model: keras.Model, constants: RetrievalConstants) -> keras.Model:
    """The network, then the final retrieval steps, which make its object explain the pattern."""
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return keras.Model(
        inputs, Refinement(constants, name="refined")(model.outputs[0], inputs), name=model.name
    )


def network_inputs(config: NetworkConfig) -> keras.KerasTensor | list[keras.KerasTensor]:
    """Inputs of a physics-informed network: measured amplitudes [B, C, N, N] and, if C > 1, offsets [B, C, 2]
    (row, column) of the windows, in pixels.
    """
    diffraction = keras.Input((config.channels, config.n, config.n), name="diffraction")
    if config.channels == 1:
        return diffraction
    return [diffraction, keras.Input((config.channels, 2), name="offsets")]


def _split(inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor | None]:
    if isinstance(inputs, list | tuple):
        diffraction, offsets = inputs
        return diffraction, offsets
    return inputs, None


def check_size(config: NetworkConfig) -> None:
    """Refuse a size that the encoder cannot halve.

    Raises InputError if N is no multiple of 2 to the power of `blocks`.
    """
    if config.n % 2**config.blocks:
        raise InputError(
            f"n = {config.n} cannot be halved {config.blocks} times, expected a multiple of {2**config.blocks} "
            "(or fewer blocks)"
        )
