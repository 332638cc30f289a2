"""Everything that a network derives from its beam in TensorFlow, as `ptychonnx.train.torch.beam` does in Torch.

A layer takes no beam as an argument, so that architectures need not pass one on: those that retrieve phases read the
beam of the call that is under way, see `beam_in_use`, or take the beam of their constants if there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import tensorflow as tf

from ptychonnx.train.beam_values import BeamValues
from ptychonnx.train.initial_retrieval import (
    CAUTION,
    CHEBYSHEV_ITERATIONS,
    DAMPED,
    FAINT,
    FIRST_ITERATIONS,
    JOINT_STEP,
    NEGLIGIBLE,
    STEP,
    RetrievalConstants,
)

__all__ = ["Beam", "BeamPreparation", "beam_in_use", "beam_of_call", "constant_beam"]


@dataclass(frozen=True)
class Beam(BeamValues[tf.Tensor]):
    """The values as TensorFlow tensors."""

    @staticmethod
    def _repeat(values: tf.Tensor, times: int, axis: int) -> tf.Tensor:
        return tf.repeat(values, times, axis=axis)


_beam_of_call: ContextVar[Beam | None] = ContextVar("beam_of_call", default=None)


@contextmanager
def beam_in_use(beam: Beam | None) -> Iterator[None]:
    """Calls of a network inside use this beam, or that of its constants if None."""
    token = _beam_of_call.set(beam)
    try:
        yield
    finally:
        _beam_of_call.reset(token)


def beam_of_call() -> Beam | None:
    """The beam of the innermost `beam_in_use`."""
    return _beam_of_call.get()


def constant_beam(constants: RetrievalConstants) -> Beam:
    """The beam that a network was built for."""
    images = ("probe", "lit", "back", "spread", "valid", "light")
    return Beam(
        # Numbers, not tensors, so that they are no constants of their own in the graph.
        scale=constants.scale,
        step=constants.step,
        **{name: tf.constant(getattr(constants, name)) for name in images},
    )


class BeamPreparation:
    """Compute a `Beam` from probe, mask and scale, see `ptychonnx.train.torch.beam`."""

    def __init__(self, constants: RetrievalConstants) -> None:
        self._alone = constants.members == 1
        self._smoothing = tf.constant(constants.smoothing)

    def __call__(self, probe: tf.Tensor, mask: tf.Tensor, scale: tf.Tensor) -> Beam:
        """The values for a probe [[B], modes, N, N, 2], a mask [[B], N, N] and a scale [[B]]."""
        batched = scale.shape.rank == 1
        modes = _without_negligible(probe * (scale[:, None, None, None, None] if batched else scale))
        density = tf.reduce_sum(tf.square(modes), axis=(-4, -1))
        brightest = tf.reduce_max(density, axis=(-2, -1), keepdims=True)
        spread = tf.math.rsqrt(tf.sqrt(density / brightest + FAINT))
        step = STEP / self._curvature(tf.sqrt(density) * spread)
        real, imaginary = modes[..., 0], modes[..., 1]
        # The two factors of the complex product, see `initial_retrieval`, [[B], modes, N, 2, N].
        same, exchanged = tf.stack([real, real], axis=-2), tf.stack([-imaginary, imaginary], axis=-2)
        forth = lit = tf.stack([same, exchanged])
        # The conjugate exchanges the sign of the second factor.
        back = tf.stack([same, -exchanged])
        if self._alone:
            # Over rows, of all modes and both parts: [[B], 1, N, 1, N]. TensorFlow broadcasts five axes at most.
            everywhere = tf.expand_dims(tf.expand_dims(spread, -2), -4)
            stepped = everywhere * (tf.reshape(step, [-1, 1, 1, 1, 1]) if batched else step)
            lit = tf.stack([same * everywhere, exchanged * everywhere])
            back = tf.stack([same * stepped, -exchanged * stepped])
        return Beam(
            scale=scale[:, None, None, None] if batched else scale,
            probe=forth,
            lit=lit,
            back=back,
            spread=spread,
            valid=mask,
            light=tf.sqrt(density / brightest),
            step=step * (JOINT_STEP / STEP),
        )

    def _curvature(self, amplitude: tf.Tensor) -> tf.Tensor:
        """Largest eigenvalue [] or [B] of ``a (smoothing @ (a x) @ smoothing)`` for ``a`` [[B], N, N], computed as in
        `ptychonnx.train.torch.beam`.
        """
        image = amplitude
        for _ in range(FIRST_ITERATIONS):
            image = amplitude * self._smoothed(amplitude * image)
            image = image / tf.reduce_max(image, axis=(-2, -1), keepdims=True)
        applied = amplitude * self._smoothed(amplitude * image)
        damped = DAMPED * _sum(image * applied) / _sum(image * image)
        weight = amplitude * (4 / damped)
        before, image = image, applied * (2 / damped) - image
        for _ in range(CHEBYSHEV_ITERATIONS - 1):
            before, image = image, weight * self._smoothed(amplitude * image) - (2 * image + before)
        largest = _sum(image * (amplitude * self._smoothed(amplitude * image))) / _sum(image * image)
        return (1 + CAUTION) * largest[..., 0, 0]

    def _smoothed(self, images: tf.Tensor) -> tf.Tensor:
        """``smoothing @ images @ smoothing``, as products of two matrices, see `tensorflow.retrieval`."""
        size = images.shape[-1]
        shape = [*([-1] * (images.shape.rank - 2)), size, size]
        for _ in range(2):
            lines = tf.reshape(images, [-1, size]) @ self._smoothing
            images = tf.linalg.matrix_transpose(tf.reshape(lines, shape))
        return images


def _without_negligible(values: tf.Tensor) -> tf.Tensor:
    """Zero where negligible, see `initial_retrieval.NEGLIGIBLE`."""
    magnitude = tf.abs(values)
    limit = NEGLIGIBLE * tf.reduce_max(magnitude, axis=(-4, -3, -2, -1), keepdims=True)
    return tf.where(magnitude < limit, tf.zeros([]), values)


def _sum(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(images, axis=(-2, -1), keepdims=True)
