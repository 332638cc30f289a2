"""Phase retrieval steps in TensorFlow; same definition as `train.first_guess`."""

from __future__ import annotations

import tensorflow as tf

from train.first_guess import INTENSITY_FLOOR, MOMENTUM, FirstGuess

__all__ = ["Retrieval"]


class Retrieval:
    """Steps that bring an object (real and imaginary part, each [B, C, N, N]) closer to scaled amplitudes."""

    def __init__(self, guess: FirstGuess) -> None:
        self.probe = [tf.constant(mode) for mode in guess.probe]
        self.back = [tf.constant(mode) for mode in guess.back]
        self.to_detector = tf.constant(guess.forward)
        self.to_object = tf.constant(guess.inverse)
        self.smoothing = tf.constant(guess.smoothing)
        self.spread = tf.constant(guess.spread)
        self.trusted = tf.constant(guess.trusted)

    def __call__(
        self, real: tf.Tensor, imaginary: tf.Tensor, amplitude: tf.Tensor, steps: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """That many steps, with momentum."""
        ahead = last = (real, imaginary)
        for number in range(steps):
            now = self.step(*ahead, amplitude)
            if number < steps - 1:
                ahead = (now[0] + MOMENTUM * (now[0] - last[0]), now[1] + MOMENTUM * (now[1] - last[1]))
            last = now
        return last

    def step(
        self, real: tf.Tensor, imaginary: tf.Tensor, amplitude: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One step."""
        waves = [_transform(*_product(real, imaginary, mode), self.to_detector) for mode in self.probe]
        intensity = tf.add_n([a * a + b * b for a, b in waves]) + INTENSITY_FLOOR
        change = self.trusted * (amplitude / tf.sqrt(intensity) - 1)
        updates = [
            _product(*_transform(change * a, change * b, self.to_object), mode)
            for (a, b), mode in zip(waves, self.back, strict=True)
        ]
        up, down = (tf.add_n(parts) for parts in zip(*updates, strict=True))
        return real + self._smooth(up), imaginary + self._smooth(down)

    def _smooth(self, part: tf.Tensor) -> tf.Tensor:
        for _ in range(2):
            part = _turned(_times(part, self.smoothing))
        return self.spread * part


def _product(real: tf.Tensor, imaginary: tf.Tensor, factor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Product with a complex constant [2, N, N]."""
    return real * factor[0] - imaginary * factor[1], real * factor[1] + imaginary * factor[0]


def _transform(real: tf.Tensor, imaginary: tf.Tensor, matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Fourier transform of both axes: twice of the last one, which is then turned into the other."""
    for _ in range(2):
        both = _times(tf.concat([real, imaginary], axis=-1), matrix)
        real, imaginary = (_turned(part) for part in tf.split(both, 2, axis=-1))
    return real, imaginary


def _times(values: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Matrix product along the last axis; a tf.matmul that broadcasts over the batch crashes TensorFlow 2.21 on some
    processors.
    """
    return tf.reshape(tf.reshape(values, [-1, values.shape[-1]]) @ matrix, [-1, *values.shape[1:]])


def _turned(values: tf.Tensor) -> tf.Tensor:
    return tf.transpose(values, [0, 1, 3, 2])
