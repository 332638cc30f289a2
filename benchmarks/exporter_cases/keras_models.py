"""Keras models: what their authors write with layers, `keras.ops` and TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from benchmarks.exporter_cases.case import Cases, real


def _no_functions(function: Callable[..., Any]) -> Any:
    raise TypeError(f"{function} is no model")


CASES = Cases(_no_functions, keras.utils.set_random_seed)


class LowPass(layers.Layer):
    """A gain for each frequency along the last axis."""

    def build(self, shape: tuple) -> None:
        self.gain = self.add_weight(shape=(shape[-1] // 2 + 1,), initializer="glorot_uniform")

    def call(self, x: Any) -> Any:
        real_part, imaginary = ops.rfft(x)
        return ops.irfft((real_part * self.gain, imaginary * self.gain))


class TokenMixing(layers.Layer):
    """The real part of a two-dimensional transform."""

    def call(self, x: Any) -> Any:
        return ops.fft2((x, ops.zeros_like(x)))[0]


class ComplexSpectrum(layers.Layer):
    """A product of complex numbers of TensorFlow between two transforms."""

    def call(self, x: Any) -> Any:
        spectrum = tf.signal.rfft(x)
        return tf.signal.irfft(spectrum * tf.cast(tf.abs(spectrum), tf.complex64))


@CASES.add_builder("dense layers with GELU")
def keras_gelu() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(32, activation="gelu"),
            layers.LayerNormalization(),
            layers.Dense(4),
        ]
    )


@CASES.add_builder("filter between rfft and irfft")
def keras_low_pass() -> keras.Model:
    return keras.Sequential([keras.Input((6, 32)), LowPass(), layers.Dense(32, activation="gelu"), LowPass()])


@CASES.add_builder("transform over tokens and features")
def keras_token_mixing() -> keras.Model:
    x = keras.Input((16, 24))
    mixed = layers.LayerNormalization()(layers.Add()([x, TokenMixing()(x)]))
    return keras.Model(x, layers.Dense(8, activation="gelu")(mixed))


@CASES.add_builder("complex numbers of TensorFlow")
def keras_complex() -> keras.Model:
    return keras.Sequential([keras.Input((4, 32)), layers.Dense(32), ComplexSpectrum()])


@CASES.add_builder("small U-Net with enlargement and two outputs")
def keras_unet() -> keras.Model:
    x = keras.Input((16, 16, 1))
    first = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    low = layers.Conv2D(16, 3, strides=2, padding="same", activation="gelu")(first)
    high = layers.UpSampling2D()(layers.BatchNormalization()(low))
    joined = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Concatenate()([first, high]))
    return keras.Model(
        x, {"amplitude": layers.Conv2D(1, 1)(joined), "mean": layers.GlobalAveragePooling2D()(joined)}
    )


@CASES.add_builder("subclassed model of two inputs", real(8), real(3, 8))
def keras_subclassed() -> keras.Model:
    return Subclassed()


class Subclassed(keras.Model):
    """Attention of one vector to three others."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = layers.Dense(8), layers.Dense(8)

    def call(self, x: Any, others: Any, training: bool = False) -> Any:
        scores = ops.einsum("bd,bnd->bn", self.query(x), self.key(others))
        return ops.einsum("bn,bnd->bd", ops.softmax(scores), others)
