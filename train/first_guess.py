"""A linear first guess of the object, which every physics-informed network starts from.

If the object were empty, the far field would have the phase of the probe's own. Giving that phase to the measured
amplitude and transforming back yields an exit wave; divided by the probe (regularised), it is a guess of the object:
one iteration of ePIE (Maiden and Rodenburg, Ultramicroscopy 109, 1256 (2009)) from vacuum. It is linear in the
amplitude, so each framework writes it as two real matrix products with the constants made here, and the compiled
network needs no Fourier operator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.physics import illumination

__all__ = ["AMPLITUDE_GAIN", "CONTRAST_GAIN", "FirstGuess", "first_guess"]

# Bring the features of a weakly absorbing object to the order of one.
CONTRAST_GAIN = 5
AMPLITUDE_GAIN = 2

# Fraction of the brightest illumination at which the division by the probe begins to be damped.
_DAMPING = 0.02


@dataclass(frozen=True)
class FirstGuess:
    """Constants, float32, of the guess for a scaled amplitude ``A`` [N, N]. Pairs are (real, imaginary).

    ``[Y_r | Y_i] = [A phase_r | A phase_i] columns``; ``[[a, b], [c, d]] = rows [Y_r | Y_i]``;
    exit wave = ``(a - d) + i (b + c)``; guess = exit wave * ``division`` + ``vacuum``.

    Attributes
    ----------
    scale
        Factor from measured to scaled amplitude.
    phase
        [2, N, N], phase factor of the empty beam's far field, DC at the centre.
    columns, rows
        [2N, 2N] and [2N, N], the inverse Fourier transform along columns and rows.
    division
        [2, N, N], ``conj(P) / (|P|^2 + damping)`` for the strongest mode P.
    vacuum
        [N, N], what the damping left out: the guess tends to 1, an empty object, where there is no light.
    light
        [N, N], amplitude of the illumination, at most 1.
    """

    scale: float
    phase: NDArray[np.float32]
    columns: NDArray[np.float32]
    rows: NDArray[np.float32]
    division: NDArray[np.float32]
    vacuum: NDArray[np.float32]
    light: NDArray[np.float32]


def first_guess(probe: NDArray[np.complexfloating], scale: float) -> FirstGuess:
    """Constants for a probe complex [modes, N, N] in sqrt(photons), and the scale of `train.dataset.SCALE_RULE`."""
    size = probe.shape[-1]
    modes = probe.astype(np.complex128) * scale
    strongest = modes[np.argmax(np.sum(np.abs(modes) ** 2, axis=(1, 2)))]
    far_field = np.fft.fftshift(np.fft.fft2(strongest, norm="ortho"))
    transform = np.fft.ifft(np.fft.ifftshift(np.eye(size), axes=0), axis=0, norm="ortho")
    real, imaginary = transform.real, transform.imag
    density = np.abs(strongest) ** 2
    damping = _DAMPING * density.max()
    light = np.sqrt(illumination(modes))
    return FirstGuess(
        scale=scale,
        phase=_pair(np.exp(1j * np.angle(far_field))),
        columns=np.block([[real.T, imaginary.T], [-imaginary.T, real.T]]).astype(np.float32),
        rows=np.concatenate([real, imaginary]).astype(np.float32),
        division=_pair(np.conj(strongest) / (density + damping)),
        vacuum=(damping / (density + damping)).astype(np.float32),
        light=(light / light.max()).astype(np.float32),
    )


def _pair(array: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    return np.stack([array.real, array.imag]).astype(np.float32)
