"""Steps of phase retrieval in TensorFlow, as defined in `ptychonnx.train.initial_retrieval`.

Images are [row, part, column].
"""

from __future__ import annotations

import tensorflow as tf

from ptychonnx.train.initial_retrieval import INTENSITY_FLOOR, MOMENTUM, RetrievalConstants
from ptychonnx.train.tensorflow.neighbours import Neighbours

__all__ = ["Retrieval"]


class Retrieval:
    """Steps that bring an object [B, C, N, 2, N] closer to scaled amplitudes [B, C, N, N]."""

    def __init__(self, constants: RetrievalConstants) -> None:
        self.constants = constants
        self.probe = tf.constant(constants.probe)
        self.lit = tf.constant(constants.lit)
        self.back = tf.constant(constants.back)
        self.rows_to_detector = tf.constant(constants.rows_to_detector.T)
        self.columns_to_detector = tf.constant(constants.columns_to_detector)
        self.columns_to_object = tf.constant(constants.columns_to_object)
        self.rows_to_object = tf.constant(constants.rows_to_object.T)
        self.smoothing = tf.constant(constants.smoothing)
        self.spread = tf.constant(constants.spread)
        self.valid = tf.constant(constants.valid)

    def __call__(
        self,
        amplitude: tf.Tensor,
        steps: int,
        offsets: tf.Tensor | None = None,
        parts: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """That many steps, with momentum.

        Parameters
        ----------
        offsets
            [B, C, 2], offsets of the windows of the C patterns in one object, see `tensorflow.neighbours`; if None,
            each pattern has an object of its own.
        parts
            Initial object, whose patches are merged first; an empty object if None.
        """
        neighbours = None if offsets is None else Neighbours(self.constants, offsets)
        if parts is None:
            nothing = amplitude * 0  # zeros_like would leave shape arithmetic in the graph
            parts = tf.stack([nothing + 1, nothing], axis=3)
        elif neighbours is not None:
            parts = neighbours.merge(parts)
        if not steps:
            return parts
        size = parts.shape[-1]
        start = _product(tf.reshape(parts, [-1, 1, size, 2, size]), self.probe)
        wanted = self.valid * tf.reshape(amplitude, [-1, size, size])
        # Sums of gradients; the object changes by their smoothed values.
        change = velocity = self._gradient(start, wanted)
        for _ in range(steps - 1):
            velocity = MOMENTUM * velocity
            change = change + velocity
            waves = start + _product(tf.expand_dims(self._smooth(change, neighbours), 1), self.lit)
            gradient = self._gradient(waves, wanted)
            velocity, change = velocity + gradient, change + gradient
        smooth = self._smooth(change, neighbours)
        if neighbours is None:
            smooth = tf.expand_dims(self.spread, 1) * smooth
        return parts + tf.reshape(smooth, [-1, *parts.shape[1:]])

    def _gradient(self, waves: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        """Direction [B C, N, 2, N] in which exit waves [B C, modes, N, 2, N] explain the valid amplitudes better."""
        modes, size = waves.shape[1], waves.shape[-1]
        lines = _times_rows(tf.reshape(waves, [-1, 2 * size, size]), self.rows_to_detector)
        far = tf.reshape(lines, [-1, 2 * size]) @ self.columns_to_detector
        far = tf.reshape(far, [-1, modes, size, 2, size])
        real, imaginary = tf.unstack(far, axis=3)
        intensity = tf.reduce_sum(real * real + imaginary * imaginary, axis=1) + INTENSITY_FLOOR
        factor = tf.reshape(wanted / tf.sqrt(intensity) - self.valid, [-1, 1, size, 1, size])
        lines = tf.reshape(far * factor, [-1, 2 * size]) @ self.columns_to_object
        change = _times_rows(tf.reshape(lines, [-1, 2 * size, size]), self.rows_to_object)
        return tf.reduce_sum(_product(tf.reshape(change, [-1, modes, size, 2, size]), self.back), axis=1)

    def _smooth(self, parts: tf.Tensor, neighbours: Neighbours | None) -> tf.Tensor:
        """Smoothed change of the object, [B C, N, 2, N]; without neighbours, `spread` is still to be applied."""
        if neighbours is not None:
            return neighbours.smooth(parts)
        size = parts.shape[-1]
        lines = _times_rows(tf.reshape(parts, [-1, size, 2 * size]), self.smoothing)
        return tf.reshape(tf.reshape(lines, [-1, size]) @ self.smoothing, [-1, size, 2, size])


def _product(parts: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return parts * factor[0] + tf.gather(parts, [1, 0], axis=3) * factor[1]


def _times_rows(images: tf.Tensor, transposed: tf.Tensor) -> tf.Tensor:
    """Product of images [B, rows, columns] with a matrix from the left, whose transpose is passed. It is computed as
    a product of two matrices, because one that broadcasts crashes TensorFlow 2.21 on some processors.
    """
    _, rows, columns = images.shape
    lines = tf.reshape(tf.transpose(images, [0, 2, 1]), [-1, rows]) @ transposed
    return tf.transpose(tf.reshape(lines, [-1, columns, transposed.shape[1]]), [0, 2, 1])
