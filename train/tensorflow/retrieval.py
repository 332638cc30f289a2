"""Steps of phase retrieval in TensorFlow, as defined in `ptychonnx.train.initial_retrieval`.

Images are [row, part, column].
"""

from __future__ import annotations

import tensorflow as tf

from ptychonnx.train.initial_retrieval import INTENSITY_FLOOR, MOMENTUM, RetrievalConstants
from ptychonnx.train.tensorflow.beam import Beam, constant_beam
from ptychonnx.train.tensorflow.neighbours import Neighbours

__all__ = ["Retrieval"]


class Retrieval:
    """Steps that bring an object [B, C, N, 2, N] closer to scaled amplitudes [B, C, N, N]."""

    def __init__(self, constants: RetrievalConstants) -> None:
        self.constants = constants
        self.beam = constant_beam(constants)
        self.rows_to_detector = tf.constant(constants.rows_to_detector.T)
        self.columns_to_detector = tf.constant(constants.columns_to_detector)
        self.columns_to_object = tf.constant(constants.columns_to_object)
        self.rows_to_object = tf.constant(constants.rows_to_object.T)
        self.smoothing = tf.constant(constants.smoothing)

    def __call__(
        self,
        amplitude: tf.Tensor,
        steps: int,
        offsets: tf.Tensor | None = None,
        parts: tf.Tensor | None = None,
        beam: Beam | None = None,
    ) -> tf.Tensor:
        """Perform a number of steps with momentum; arguments as in `ptychonnx.train.torch.retrieval`."""
        beam = beam or self.beam
        neighbours = None if offsets is None else Neighbours(offsets, beam)
        beam = beam.repeated(self.constants.members)
        if parts is None:
            nothing = amplitude * 0  # zeros_like would leave shape arithmetic in the graph
            parts = tf.stack([nothing + 1, nothing], axis=3)
        elif neighbours is not None:
            parts = neighbours.merge(parts)
        if not steps:
            return parts
        size = parts.shape[-1]
        start = _product(tf.reshape(parts, [-1, 1, size, 2, size]), beam.probe)
        wanted = tf.expand_dims(beam.valid * tf.reshape(amplitude, [-1, size, size]), 2)
        # Sums of gradients; the object changes by their smoothed values.
        change = velocity = self._gradient(start, wanted, beam)
        for _ in range(steps - 1):
            velocity = MOMENTUM * velocity
            change = change + velocity
            waves = start + _product(tf.expand_dims(self._smooth(change, neighbours), 1), beam.lit)
            gradient = self._gradient(waves, wanted, beam)
            velocity, change = velocity + gradient, change + gradient
        smooth = self._smooth(change, neighbours)
        if neighbours is None:
            smooth = tf.expand_dims(beam.spread, -2) * smooth
        return parts + tf.reshape(smooth, [-1, *parts.shape[1:]])

    def _gradient(self, waves: tf.Tensor, wanted: tf.Tensor, beam: Beam) -> tf.Tensor:
        """Direction [B C, N, 2, N] in which exit waves [B C, modes, N, 2, N] explain the valid amplitudes better."""
        size = waves.shape[-1]
        # The modes of a training batch are counted when it is computed.
        shape = tf.shape(waves) if waves.shape[1] is None else [-1, *waves.shape[1:]]
        lines = _times_rows(tf.reshape(waves, [-1, 2 * size, size]), self.rows_to_detector)
        far = tf.reshape(lines, [-1, 2 * size]) @ self.columns_to_detector
        far = tf.reshape(far, shape)
        real, imaginary = tf.split(far * far, 2, axis=3)
        intensity = tf.reduce_sum(real + imaginary, axis=1) + INTENSITY_FLOOR
        valid = tf.expand_dims(beam.valid, -2)
        factor = tf.reshape(wanted / tf.sqrt(intensity) - valid, [-1, 1, size, 1, size])
        lines = tf.reshape(far * factor, [-1, 2 * size]) @ self.columns_to_object
        change = _times_rows(tf.reshape(lines, [-1, 2 * size, size]), self.rows_to_object)
        return tf.reduce_sum(_product(tf.reshape(change, shape), beam.back), axis=1)

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
