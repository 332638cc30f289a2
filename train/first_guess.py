"""A first guess of the object by phase retrieval, which every physics-informed network starts from and ends with.

From an empty object on, each step propagates the exit wave to the detector, gives it the measured amplitude, and
propagates what that changed back: the gradient of ``sum (|FFT(P O)| - A)^2 / 2`` (the modulus projection of ePIE,
Maiden and Rodenburg, Ultramicroscopy 109, 1256 (2009)). The gradient is preconditioned with the covariance that the
object is expected to have, a Gaussian over a few pixels: where the light is too faint to say more, the result
continues what lies beside it (of all objects that explain the pattern, the one of least energy under that prior).
Steps carry momentum (Polyak, USSR Computational Mathematics and Mathematical Physics 4, 1 (1964)).

Everything is a product of real matrices with the constants made here, so that each framework writes it alike and the
compiled network needs no Fourier operator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.physics import illumination

__all__ = [
    "AMPLITUDE_GAIN",
    "CONTRAST_GAIN",
    "INTENSITY_FLOOR",
    "MOMENTUM",
    "FirstGuess",
    "first_guess",
]

# Bring the features of a weakly absorbing object to the order of one.
CONTRAST_GAIN = 5
AMPLITUDE_GAIN = 2

MOMENTUM = 0.9

# Added to the intensity of the scaled patterns (mean 1) before the square root: keeps the phase of a dark pixel, which
# nothing determines, from being amplified.
INTENSITY_FLOOR = 1e-5

# Correlation length of the object that is expected, pixels (standard deviation of the Gaussian).
_CORRELATION = 2.0

# Faint places take larger steps, in proportion to (light + this fraction of the brightest) to the power -1/2.
_FAINT = 0.1

_POWER_ITERATIONS = 100

_TRAINING_STEPS = 4


@dataclass(frozen=True)
class FirstGuess:
    """Constants, float32, of phase retrieval from a scaled amplitude ``A`` [N, N]. Pairs are (real, imaginary).

    For an object ``O``: ``psi_m = FFT(P_m O)``, ``q = A / sqrt(floor + sum_m |psi_m|^2) - 1`` (0 where the detector
    is not trusted), ``G = sum_m back_m IFFT(q psi_m)``, and the step is ``spread * (smoothing G smoothing)``.

    Attributes
    ----------
    scale
        Factor from measured to scaled amplitude.
    steps, final_steps
        Steps before the network, from an empty object, and after it, from the network's.
    training_steps
        Steps after the network while it is trained: gradients pass through them, and few are enough to learn from.
    probe
        [modes, 2, N, N], P, scaled.
    back
        [modes, 2, N, N], ``conj(P) * spread``, over the largest curvature, so that a step never overshoots.
    forward, inverse
        [2N, 2N], the unitary Fourier transform of the last axis of ``[real | imaginary]``, to a centred spectrum and
        from one.
    smoothing
        [N, N], symmetric: the expected covariance along either axis.
    spread
        [N, N], larger where there is less light.
    trusted
        [N, N], 1 where the detector is trusted, 0 elsewhere.
    light
        [N, N], amplitude of the illumination, at most 1.
    """

    scale: float
    steps: int
    final_steps: int
    training_steps: int
    probe: NDArray[np.float32]
    back: NDArray[np.float32]
    forward: NDArray[np.float32]
    inverse: NDArray[np.float32]
    smoothing: NDArray[np.float32]
    spread: NDArray[np.float32]
    trusted: NDArray[np.float32]
    light: NDArray[np.float32]


def first_guess(
    probe: NDArray[np.complexfloating],
    scale: float,
    mask: NDArray[np.bool_] | None = None,
    *,
    steps: int,
    final_steps: int,
) -> FirstGuess:
    """Constants for a probe complex [modes, N, N] in sqrt(photons), and the scale of `train.dataset.SCALE_RULE`.

    Parameters
    ----------
    mask
        bool [N, N], True where the detector is trusted; everywhere if None.
    steps, final_steps
        Before the network and after it, see `train.config.NetworkConfig`.
    """
    size = probe.shape[-1]
    modes = probe.astype(np.complex128) * scale
    density = illumination(modes)
    spread = (density / density.max() + _FAINT) ** -0.25
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    smoothing = np.exp(-0.5 * (distance / _CORRELATION) ** 2)
    transform = np.fft.fftshift(np.fft.fft(np.eye(size), axis=0, norm="ortho"), axes=0)
    light = np.sqrt(density)
    return FirstGuess(
        scale=scale,
        steps=steps,
        final_steps=final_steps,
        training_steps=min(final_steps, _TRAINING_STEPS),
        probe=_pairs(modes),
        back=_pairs(np.conj(modes) * spread / _curvature(density, spread, smoothing)),
        forward=_block(transform),
        inverse=_block(transform.conj().T),
        smoothing=smoothing.astype(np.float32),
        spread=spread.astype(np.float32),
        trusted=np.ones((size, size), np.float32) if mask is None else mask.astype(np.float32),
        light=(light / light.max()).astype(np.float32),
    )


def _curvature(
    density: NDArray[np.float64], spread: NDArray[np.float64], smoothing: NDArray[np.float64]
) -> float:
    """Largest eigenvalue of the preconditioned curvature, by power iteration; a trusted mask can only lower it."""
    # All factors are positive, hence so is the eigenvector (Perron and Frobenius).
    vector, value = np.ones_like(density), 0.0
    for _ in range(_POWER_ITERATIONS):
        vector = spread * (smoothing @ (spread * density * vector) @ smoothing)
        value = float(np.linalg.norm(vector))
        vector /= value
    return value


def _block(matrix: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """The real matrix that multiplies ``[real | imaginary]`` from the right as `matrix` multiplies the last axis."""
    real, imaginary = matrix.real.T, matrix.imag.T
    return np.block([[real, imaginary], [-imaginary, real]]).astype(np.float32)


def _pairs(modes: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    return np.stack([modes.real, modes.imag], axis=1).astype(np.float32)
