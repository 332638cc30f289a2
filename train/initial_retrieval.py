"""Phase retrieval, with which every physics-informed network starts and ends.

Starting from an empty object, each step propagates the exit wave to the detector, replaces its amplitude by the
measured one, and propagates the change back: the gradient of ``sum (|FFT(P O)| - A)^2 / 2`` (the modulus projection of
ePIE, Maiden and Rodenburg, Ultramicroscopy 109, 1256 (2009)). The gradient is preconditioned with the covariance that
is expected of the object, a Gaussian over a few pixels: where the illumination is too faint to determine the object,
the result continues its surroundings (of all objects that explain the pattern, it has the least energy under that
prior). Steps have momentum, and the gradient is taken at the extrapolated object (Nesterov, Soviet Mathematics Doklady
27, 372 (1983)).

A network that sees several patterns at a time (gridsize above 1) finds one object for all of them: the covariance
extends from the window of each pattern into those of the others, by the distance between them, which is an input of
the network (`docs/decisions/0018-joint-retrieval.md`). For pixels r of window c and r' of window c' it is the Gaussian
of ``r + offset_c - r' - offset_c'``, whole pixels or not, so that patches agree where they overlap.

All operations are products of real matrices, computed here or from the offsets, so that both frameworks share one
definition and the exported graph needs no Fourier operator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.scan.forward_model import illumination
from ptychonnx.train.config import NetworkConfig

__all__ = [
    "AMPLITUDE_GAIN",
    "CAUTION",
    "CHEBYSHEV_ITERATIONS",
    "CONTRAST_GAIN",
    "CORRELATION",
    "DAMPED",
    "DARKEST",
    "FAINT",
    "FIRST_ITERATIONS",
    "INTENSITY_FLOOR",
    "JOINT_STEP",
    "MOMENTUM",
    "NEGLIGIBLE",
    "STEP",
    "Preconditioner",
    "RetrievalConstants",
    "constants_for_network",
    "preconditioner",
    "retrieval_constants",
]

# Gains that bring the features of a weakly absorbing object to the order of one.
CONTRAST_GAIN = 5
AMPLITUDE_GAIN = 2

MOMENTUM = 0.9

# Length of a step, over the largest curvature c. On a quadratic function a step s with momentum m multiplies by the
# roots of z^2 - (1 - s c) ((1 + m) z - m), which stay inside the unit circle up to s c = (2 + 2 m) / (1 + 2 m) = 1.36.
STEP = 4 / 3

# Added to the intensity of the scaled patterns (mean 1) before the square root: prevents that the phase of a dark
# pixel, which is undetermined, is amplified.
INTENSITY_FLOOR = 1e-5

# Expected correlation length of the object, pixels (standard deviation of the Gaussian).
CORRELATION = 2.0

# Faint pixels take larger steps, proportional to (light + this fraction of the brightest) to the power -1/2.
FAINT = 0.1

# For several patterns at a time the largest curvature is that of one times the ratio of the brightest illuminations,
# within 2 % for all distances between them (measured for the simulated zone plate, tests/train/test_joint.py).
JOINT_STEP = 1.3

# Added to the illumination of a window, at most 1, so that patches can be merged where it is zero.
DARKEST = 1e-4

# Constants below this fraction of the largest of their array are 0. They are far below the rounding of float32, and
# products with them are denormal numbers, which slow Intel processors down by a factor of three.
NEGLIGIBLE = 1e-12

# The largest curvature of a beam that is an input is estimated by a few power iterations, then by Chebyshev iterations
# that damp eigenvalues below this fraction of the first estimate.
FIRST_ITERATIONS = 2
CHEBYSHEV_ITERATIONS = 16
DAMPED = 0.96

# Relative increase of that estimate, so that a step is never longer than that of the definition by more than the
# estimate is wrong: at most 5e-4 for the probes of microscopes, and 1 % for speckles whose bright spots are equal. The
# definition itself stays 2 % below the largest stable step.
CAUTION = 5e-4

_POWER_ITERATIONS = 100

_TRAINING_STEPS = 4


@dataclass(frozen=True)
class Preconditioner:
    """Factors that turn a gradient ``G`` into a step: ``step * spread * (smoothing @ (spread * G) @ smoothing)``.

    * `spread`: [..., N, N], larger where the illumination is fainter.
    * `smoothing`: [N, N], symmetric: the expected covariance along either axis.
    * `step`: [..., 1, 1], the largest stable step with momentum.
    """

    spread: NDArray[np.float64]
    smoothing: NDArray[np.float64]
    step: NDArray[np.float64]


@dataclass(frozen=True)
class RetrievalConstants:
    """Constants (float32) of phase retrieval from a scaled amplitude ``A`` [N, N]. Parts are (real, imaginary).

    For an object ``O``: ``psi_m = FFT(P_m O)``, ``q = A / sqrt(floor + sum_m |psi_m|^2) - 1`` (0 at invalid
    pixels), ``G = sum_m B_m IFFT(q psi_m)``, and the step is ``spread * (smoothing G smoothing)``.

    An image with parts is [row, part, column]. Its transform is a product from the left, over [row, part], and one
    from the right, over [part, column], and so is the inverse, without transpositions. With several patterns at a time,
    `spread`, `smoothing` and the length of the step depend on the distances between them; `lit` and `back` then hold
    the probe alone.

    * `scale`: factor from measured to scaled amplitude.
    * `steps`, `final_steps`: steps before the network, from an empty object, and after it, from its object.
    * `training_steps`: steps after the network during training; gradients pass through them, and few suffice.
    * `members`: number of patterns that one object explains: C = gridsize ** 2.
    * `probe`, `lit`: [2, modes, N, 2, N], factors of the complex products with the scaled P and with ``P * spread``:
      the first multiplies the parts of an image, the second the exchanged parts, and their sum is the product.
    * `back`: [2, modes, N, 2, N], the same for B: ``conj(P) * spread`` times the largest stable step with momentum.
    * `rows_to_detector`, `columns_to_detector`, `columns_to_object`, `rows_to_object`: [2N, 2N], the unitary Fourier
      transform to a centred spectrum, and back. Rows multiply from the left, columns from the right.
    * `smoothing`: [N, N], symmetric: the expected covariance along either axis.
    * `spread`: [N, N], larger where the illumination is fainter.
    * `valid`: [N, N], 1 at valid pixels of the detector, 0 elsewhere.
    * `light`: [N, N], amplitude of the illumination, at most 1.
    * `step`: length of a step for several patterns at a time, times the ratio of their brightest illumination to that
      of one.
    """

    scale: float
    steps: int
    final_steps: int
    training_steps: int
    members: int
    probe: NDArray[np.float32]
    lit: NDArray[np.float32]
    back: NDArray[np.float32]
    rows_to_detector: NDArray[np.float32]
    columns_to_detector: NDArray[np.float32]
    columns_to_object: NDArray[np.float32]
    rows_to_object: NDArray[np.float32]
    smoothing: NDArray[np.float32]
    spread: NDArray[np.float32]
    valid: NDArray[np.float32]
    light: NDArray[np.float32]
    step: float


def retrieval_constants(
    probe: NDArray[np.complexfloating],
    scale: float,
    mask: NDArray[np.bool_] | None = None,
    *,
    steps: int,
    final_steps: int,
    members: int = 1,
) -> RetrievalConstants:
    """Constants for a probe (complex [modes, N, N], in sqrt(photons)) and a scale (see `dataset.SCALE_RULE`).

    * `mask`: bool [N, N], True at valid pixels; all are valid if None.
    * `steps`, `final_steps`: steps before and after the network, see `ptychonnx.train.config.NetworkConfig`.
    * `members`: number of patterns that one object explains.
    """
    size = probe.shape[-1]
    modes = probe.astype(np.complex128) * scale
    density = illumination(modes)
    expected = preconditioner(density)
    transform = np.fft.fftshift(np.fft.fft(np.eye(size), axis=0, norm="ortho"), axes=0)
    inverse = transform.conj().T
    light = np.sqrt(density)
    alone = members == 1
    exact = {
        "probe": _product(modes),
        "lit": _product(modes * expected.spread if alone else modes),
        "back": _product(modes.conj() * (expected.step * expected.spread if alone else 1)),
        "rows_to_detector": _rows(transform),
        "columns_to_detector": _real(transform).T,
        "columns_to_object": _real(inverse).T,
        "rows_to_object": _rows(inverse),
        "smoothing": expected.smoothing,
        "spread": expected.spread,
        "valid": np.ones((size, size)) if mask is None else mask,
        "light": light / light.max(),
    }
    return RetrievalConstants(
        scale=scale,
        steps=steps,
        final_steps=final_steps,
        training_steps=min(final_steps, _TRAINING_STEPS),
        members=members,
        step=expected.step.item() * JOINT_STEP / STEP,
        **{name: _constant(values) for name, values in exact.items()},
    )


def constants_for_network(
    network: NetworkConfig, probe: NDArray[np.complexfloating], scale: float, mask: NDArray[np.bool_] | None
) -> RetrievalConstants:
    """The constants for a network with these settings."""
    return retrieval_constants(
        probe,
        scale,
        mask,
        steps=network.first_steps,
        final_steps=network.final_steps,
        members=network.channels,
    )


def preconditioner(density: NDArray[np.float64]) -> Preconditioner:
    """The preconditioner for objects under a photon density [..., N, N], which bounds the curvature of the error.

    For several windows of one object the density is the sum of theirs, each at its position.
    """
    size = density.shape[-1]
    spread = (density / density.max(axis=(-2, -1), keepdims=True) + FAINT) ** -0.25
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    smoothing = np.exp(-0.5 * (distance / CORRELATION) ** 2)
    return Preconditioner(spread, smoothing, STEP / _curvature(density, spread, smoothing))


def _curvature(
    density: NDArray[np.float64], spread: NDArray[np.float64], smoothing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Largest eigenvalue [..., 1, 1] of the preconditioned curvature, by power iteration; a mask can only
    reduce it.
    """
    # All factors are positive, hence so is the eigenvector (Perron and Frobenius).
    vector, value = np.ones_like(density), np.ones((1, 1))
    for _ in range(_POWER_ITERATIONS):
        vector = spread * (smoothing @ (spread * density * vector) @ smoothing)
        value = np.linalg.norm(vector, axis=(-2, -1), keepdims=True)
        vector /= value
    return value


def _constant(values: NDArray) -> NDArray[np.float32]:
    """The values in float32, without negligible ones."""
    magnitude = np.abs(values)
    return np.where(magnitude < NEGLIGIBLE * magnitude.max(), 0, values).astype(np.float32)


def _product(factor: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """Factors [2, ..., N, 2, N] of the complex product with `factor` [..., N, N]: the first multiplies the parts of an
    image, the second the exchanged parts, and the product is their sum.
    """
    same = np.stack([factor.real, factor.real], axis=-2)
    exchanged = np.stack([-factor.imag, factor.imag], axis=-2)
    return np.stack([same, exchanged])


def _real(matrix: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """The real matrix [2N, 2N] that multiplies (real, imaginary) from the left as `matrix` does complex values."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def _rows(matrix: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """As `_real`, for rows that are [row, part] instead of [part, row]."""
    size = len(matrix)
    return _real(matrix).reshape(2, size, 2, size).transpose(1, 0, 3, 2).reshape(2 * size, 2 * size)
