"""One object for several neighbouring patterns in TensorFlow, as defined in `ptychonnx.train.initial_retrieval`.

Images are [row, part, column]. Offsets need not be whole pixels: the covariance is evaluated at the exact distance, and
merged values are interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ptychonnx.train.initial_retrieval import CORRELATION, DARKEST, FAINT, NEGLIGIBLE
from ptychonnx.train.tensorflow.beam import Beam

__all__ = ["Neighbours"]


class Neighbours:
    """Windows of groups of patterns at known offsets."""

    def __init__(self, offsets: tf.Tensor, beam: Beam) -> None:
        """For offsets [B, C, 2] (row, column) in pixels, from any origin, and a beam for all groups or for each."""
        size = beam.light.shape[-1]
        self._shape = (-1, offsets.shape[1], size)
        axis = np.arange(size, dtype=np.float32)
        distance = axis[:, None] - axis
        # Distance of each window [B, to, from, 1, 1] from each other one, along rows and along columns.
        beyond = tf.expand_dims(offsets, 2) - tf.expand_dims(offsets, 1)
        rows, columns = tf.unstack(beyond[..., None, None, :], axis=-1)
        # [B, from, to, row there, row here] and [B, to, from, column here, column there]
        self._rows = tf.transpose(rows, [0, 2, 1, 3, 4]) + distance
        self._columns = columns - distance
        self._covariance = self._carriers(_gaussian)
        self._values = self._carriers(_triangle)
        # [N, 1, N], or [B, 1, N, 1, N] with a beam for each group.
        density = tf.square(beam.light) + DARKEST
        self._density = density[:, None] if density.shape.rank == 2 else density[:, None, :, None]
        every = offsets[:, :, :1, None, None] * 0 + self._density
        self._total = self._carry(every, self._values)
        brightest = tf.reduce_max(self._total, axis=[1, 2, 3, 4], keepdims=True)
        self._spread = 1 / tf.sqrt(tf.sqrt(self._total / brightest + FAINT))
        step = beam.step if isinstance(beam.step, float) else tf.reshape(beam.step, [-1, 1, 1, 1, 1])
        self._step = step / brightest

    def merge(self, parts: tf.Tensor) -> tf.Tensor:
        """Merge patches [B, C, N, 2, N] where they overlap: means weighted by the illumination."""
        return self._carry(parts * self._density, self._values) / self._total

    def smooth(self, gradient: tf.Tensor) -> tf.Tensor:
        """Change of the object, [B C, N, 2, N], for gradients of that shape at each of its windows."""
        _, members, size = self._shape
        spread = self._spread
        gradient = tf.reshape(gradient, [-1, members, size, 2, size]) * spread
        change = self._carry(gradient, self._covariance) * (spread * self._step)
        return tf.reshape(change, [-1, size, 2, size])

    def _carriers(self, kernel: Callable[[tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Matrices [B, from, (to, row), row] and [B, to, (from, column), column]."""
        _, members, size = self._shape
        shape = [-1, members, members * size, size]
        return tf.reshape(kernel(self._rows), shape), tf.reshape(kernel(self._columns), shape)

    def _carry(self, images: tf.Tensor, carriers: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Sum of the images [B, C, N, parts, N] of all windows, at the position of each window."""
        _, members, size = self._shape
        parts = images.shape[3]
        rows, columns = carriers
        lines = rows @ tf.reshape(images, [-1, members, size, parts * size])
        lines = tf.reshape(lines, [-1, members, members, size, parts, size])
        lines = tf.reshape(
            tf.transpose(lines, [0, 2, 3, 4, 1, 5]), [-1, members, size * parts, members * size]
        )
        return tf.reshape(lines @ columns, [-1, members, size, parts, size])


def _gaussian(distance: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(tf.exp(distance * distance * (-0.5 / CORRELATION**2)) - NEGLIGIBLE)


def _triangle(distance: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(1 - tf.abs(distance))
