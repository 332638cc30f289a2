"""Forward model and physics-informed losses in TensorFlow: the functions of `ptychonnx.train.torch.physics`, where
shapes and definitions are.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = [
    "LOSSES",
    "amplitude_mae",
    "forward_intensity",
    "merge_patches",
    "physics_loss",
    "poisson_deviance",
    "supervised_loss",
]

# Keeps the square root differentiable at zero; far below one photon.
_FLOOR = 1e-8


def forward_intensity(patches: tf.Tensor, probe: tf.Tensor) -> tf.Tensor:
    """Far-field intensity [..., N, N] of object patches [..., N, N] lit by a probe [[groups], modes, N, N]."""
    size = patches.shape[-1]
    if probe.shape.rank == 4:
        probe = probe[:, None]
    far_field = tf.signal.fft2d(patches[..., None, :, :] * probe) / size  # norm="ortho"
    intensity = tf.reduce_sum(
        tf.square(tf.math.real(far_field)) + tf.square(tf.math.imag(far_field)), axis=-3
    )
    return tf.signal.fftshift(intensity, axes=(-2, -1))


def merge_patches(patches: tf.Tensor, offsets: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Merge the patches [groups, members, N, N] of each group: stitch them, weighted, and cut the windows again."""
    _, members, size, _ = patches.shape
    if members == 1:
        return patches
    shape = tf.shape(patches, out_type=tf.int64)
    extent = tf.reduce_max(offsets, axis=(0, 1)) + size
    height, width = extent[0], extent[1]
    axis = tf.range(size, dtype=tf.int64)
    rows = offsets[..., 0, None, None] + axis[:, None]
    columns = offsets[..., 1, None, None] + axis[None, :]
    canvas = tf.range(shape[0])[:, None, None, None] * (height * width)
    index = tf.reshape(canvas + rows * width + columns, [-1])
    weights = tf.broadcast_to(weight if weight.shape.rank == 2 else weight[:, None], shape)
    parts = [weights * tf.math.real(patches), weights * tf.math.imag(patches), weights]
    terms = tf.reshape(tf.stack(parts, axis=-1), [-1, 3])
    total = tf.gather(tf.math.unsorted_segment_sum(terms, index, shape[0] * height * width), index)
    merged = total[:, :2] / total[:, 2:]
    return tf.reshape(tf.complex(merged[:, 0], merged[:, 1]), shape)


def amplitude_mae(
    intensity: tf.Tensor, amplitude: tf.Tensor, mask: tf.Tensor, scale: tf.Tensor | float
) -> tf.Tensor:
    """Mean absolute error of the amplitude over valid pixels, in units of the scaled (RMS 1) amplitude."""
    error = tf.abs(tf.sqrt(intensity + _FLOOR) - amplitude)
    return tf.reduce_mean(scale * _mean_over_valid(error, mask))


def poisson_deviance(
    intensity: tf.Tensor, amplitude: tf.Tensor, mask: tf.Tensor, scale: tf.Tensor | float
) -> tf.Tensor:
    """Poisson negative log-likelihood of the counts in photons, less its minimum, over the mean counts in a pixel."""
    counts = tf.square(amplitude)
    rate = intensity + _FLOOR
    deviance = rate - counts + tf.math.xlogy(counts, counts) - counts * tf.math.log(rate)
    return tf.reduce_mean(scale**2 * _mean_over_valid(deviance, mask))


LOSSES = {"mae": amplitude_mae, "poisson": poisson_deviance}


def physics_loss(
    patches: tf.Tensor,
    amplitude: tf.Tensor,
    offsets: tf.Tensor,
    *,
    probe: tf.Tensor,
    weight: tf.Tensor,
    mask: tf.Tensor,
    scale: tf.Tensor | float,
    loss: str,
) -> tf.Tensor:
    """Loss of the merged patches of each group with respect to its patterns; `loss` is ``mae`` or ``poisson``."""
    intensity = forward_intensity(merge_patches(patches, offsets, weight), probe)
    return LOSSES[loss](intensity, amplitude, mask, scale)


def supervised_loss(patches: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Mean distance of predicted and known patches, complex [..., N, N], weighted by the illumination's amplitude."""
    light = tf.sqrt(weight)
    difference = patches - labels
    # The gradient of |z| is undefined at 0.
    distance = tf.sqrt(tf.square(tf.math.real(difference)) + tf.square(tf.math.imag(difference)) + 1e-12)
    return tf.reduce_mean(light * distance) / tf.reduce_mean(light)


def _mean_over_valid(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Means [groups] over the valid pixels of all patterns of a group; [] for one mask of all."""
    valid = tf.cast(mask, values.dtype)
    if mask.shape.rank == 2:
        return tf.reduce_mean(values * valid) / tf.reduce_mean(valid)
    own = tf.reduce_mean(values * valid[:, None], axis=(1, 2, 3))
    return own / tf.reduce_mean(valid, axis=(1, 2))
